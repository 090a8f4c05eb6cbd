import pytest
import torch

from harness.process.errors import first_line, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected
    outer = RuntimeError("the compiler failed")
    outer.__cause__ = error
    assert is_out_of_memory(outer) is expected


def test_an_assertion_without_a_text_is_told_by_its_code() -> None:
    with pytest.raises(AssertionError) as error:
        raise AssertionError  # as `assert condition` does where pytest does not rewrite it
    assert first_line(error.value).startswith("raise AssertionError  # as")
    assert first_line(AssertionError()) == "AssertionError"
    assert first_line(MemoryError()) == "MemoryError"
