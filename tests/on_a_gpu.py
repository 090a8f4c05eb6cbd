"""What only a real GPU can show, and which test shows it there. Without one, these tests are skipped, visibly.

All else that the project does with a GPU is rehearsed on one that is not there (tests/fake_gpu.py).
"""

from typing import Any

import pytest

DEVICES: tuple[Any, ...] = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))
"""For tests that run in the same way on both, so that they are no dead code where there is no GPU."""

ONLY_THERE = {
    "attentions/test_implied.py::test_an_implied_map_is_found_where_the_tokens_are": "unit values are made there",
    "attentions/test_triton.py::test_a_gpu_takes_it_where_it_is_forced": "where they are taken",
    "attentions/test_triton.py::test_gradients_can_be_differentiated_again": "torch's gradients in place of theirs",
    "attentions/test_triton.py::test_half_precision_is_kept_as_it_is": "what they keep",
    "attentions/test_triton.py::test_half_precision_is_summed_in_float32": "their products in TF32",
    "attentions/test_triton.py::test_it_gives_the_same": "Triton's kernels as they are compiled",
    "attentions/test_triton.py::test_it_gives_the_same_bits_again": "that their programs may end in any order",
    "attentions/test_triton.py::test_powers_stay_in_range": "their range",
    "attentions/test_triton.py::test_what_is_not_finite_stays_so": "their comparisons",
    "attentions/test_triton.py::test_wide_heads_and_regions_are_left_to_torch": "where they are not taken",
    "backbones/test_backbones.py::test_a_step_is_that_of_float64_on_a_cpu": "kernels, fused ones too, compute the same",
    "harness/certificate/test_certify.py::test_a_sound_attention_passes_all_laws_on_a_gpu": "the laws hold there",
    "harness/measures/test_parts.py::test_a_gpu_has_the_time_of_its_kernels": "times of kernels, by what starts them",
    "harness/measures/test_quiet.py::test_gpu": "other processes and the clock of a GPU are seen",
    "harness/measures/test_roofline.py::test_a_device_has_a_roof": "its copies and products by its events",
    "harness/measures/test_speed.py::test_compiled": "torch.compile makes kernels for it",
    "harness/measures/test_speed.py::test_gpu": "times by its events; peaks of its allocator",
    "harness/measures/test_speed.py::test_running_out_of_memory_is_recognised": "what torch raises there",
    "harness/process/test_environment.py::test_a_device_is_described": "its name, driver and versions are found",
    "harness/racing/test_on_a_gpu.py::test_attentions_are_raced_on_a_gpu": "they are correct there, and have times",
    "harness/racing/test_on_a_gpu.py::test_models_are_raced_on_a_gpu": "the same of models, up to a training step",
    "harness/racing/test_on_a_gpu.py::test_what_does_not_fit_a_gpu_has_no_number": "a map of 2^40 weights does not fit",
    "harness/training/test_learner.py::test_a_state_is_read_back_to_the_bit": "checkpoints of its tensors",
    "harness/training/test_loop.py::test_it_learns": "float16 with a scaler that scales; images that a thread pins",
    "harness/training/test_several_ranks.py::test_each_cell_has_one_record_and_is_not_run_again": "nccl, and gloo "
    "beside it (two GPUs)",
}
"""Functions with the marker `gpu`, below tests/, and what each of them shows."""
