"""clusters.toml: what is read, in which order, and what is refused in one line."""

import os
import re
from pathlib import Path

import pytest

from slurm.clusters import Cluster, load
from slurm.options import flags

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder and a configuration folder, both empty."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def here(text: str) -> None:
    Path("clusters.toml").write_text(text)


def at_home(text: str) -> None:
    folder = Path(os.environ["XDG_CONFIG_HOME"]) / "attention-bench"
    folder.mkdir(parents=True)
    (folder / "clusters.toml").write_text(text)


def refused(name: str) -> str:
    with pytest.raises(ValueError) as error:
        load(name)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_table_is_a_cluster():
    here('[gpu]\npartition = "a100"\ngpus_per_node = 8\nmemory_gb = 64\nsetup = ["module load cuda", "set -e"]')
    assert load("gpu") == Cluster(
        "gpu", partition="a100", gpus_per_node=8, memory_gb=64, setup=("module load cuda", "set -e")
    )


def test_the_working_folder_comes_before_the_home_folder():
    here("[a]\nminutes = 10")
    at_home("[a]\nminutes = 20\n[b]\nminutes = 30")
    assert (load("a").minutes, load("b").minutes) == (10, 30)


def test_without_xdg_the_home_folder_has_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    at_home("[a]\nminutes = 20")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert load("a").minutes == 20
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert load("a").minutes == 20


def test_local_needs_no_file_and_may_have_a_table():
    assert load("local") == Cluster("local")
    assert load("local").is_local
    here("[local]\nslots = 2\n[gpu]")
    assert load("local") == Cluster("local", slots=2)
    assert not load("gpu").is_local


def test_the_example_has_every_key_and_only_those():
    text = (ROOT / "clusters.example.toml").read_text()
    here(text)
    assert load("a100").gpus_per_node == 8
    assert load("cpu").tasks_per_node == 4
    assert load("local").slots == 1
    # What is commented out is right, too.
    here(re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE))
    assert load("a100").container == "apptainer exec --nv /images/torch.sif"
    assert load("a100").sbatch == {"mail-type": "FAIL", "nice": 100, "contiguous": True}
    assert load("cpu") == Cluster(
        "cpu", partition="preemptable", tasks_per_node=4, cpus_per_task=8, memory_per_cpu_gb=2, minutes=240
    )
    keys = set(re.findall(r"^(?:# )?(\w+) = ", text, flags=re.MULTILINE))
    assert keys == set(Cluster.__dataclass_fields__) - {"name"}


def test_without_any_file_both_places_and_the_way_out_are_named(tmp_path):
    text = refused("gpu")
    assert "no clusters.toml here" in text
    assert f"{tmp_path}/config/attention-bench/clusters.toml" in text
    assert "`attention-bench cluster detect`" in text


def test_an_unknown_name_is_told_the_known_ones():
    here("[a100]\n[cpu]")
    at_home("[a100]\n[v100]")
    text = refused("a10")
    assert text.startswith("unknown cluster 'a10'; did you mean a100")
    assert "(allowed: a100, cpu, v100, local) in clusters.toml and " in text


def test_a_misspelt_key_is_told_what_is_near():
    here("[gpu]\nminuts = 10")
    assert "clusters.toml: cluster gpu: unknown key 'minuts'; did you mean minutes? (allowed: par" in refused("gpu")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gpu]\npartition = a100", "clusters.toml is not TOML: Invalid value (at line 2, column 13)"),
        ("minutes = 3\n[gpu]", "clusters.toml: 'minutes' is outside a table"),
        ("[gpu]\npartition = 3", "partition must be the name of a partition, not 3; without this line, Slurm decides"),
        ('[gpu]\naccount = ""', "account must be text without spaces, not ''; without this line, Slurm decides"),
        ('[gpu]\npartition = "a,b"', "partition must be a single one, not 'a,b'; write one table for each"),
        ('[gpu]\nminutes = "4"', "minutes must be a whole number"),
        ("[gpu]\nminutes = 4", "at least 5, as Slurm warns a job up to a minute early, not 4"),
        ("[gpu]\nnodes = true", "nodes must be a whole number, at least 1, not True"),
        ("[gpu]\ngpus_per_node = -1", "gpus_per_node must be a whole number, at least 0, not -1"),
        ("[gpu]\nthrottle = 0", "throttle must be a whole number, at least 1, not 0"),
        ("[gpu]\nmemory_gb = inf", "memory_gb must be a number above 0, not inf"),
        ("[gpu]\nmemory_gb = nan", "memory_gb must be a number above 0, not nan"),
        ("[gpu]\nmemory_gb = true", "memory_gb must be a number above 0, not True"),
        ("[gpu]\nmemory_per_cpu_gb = 0", "memory_per_cpu_gb must be a number above 0, not 0"),
        (
            "[gpu]\nmemory_gb = 8\nmemory_per_cpu_gb = 1",
            "memory_gb (per node) and memory_per_cpu_gb exclude each other",
        ),
        ('[gpu]\npartition = " gpu"', "partition must be the name of a partition, not ' gpu'"),
        ('[gpu]\npartition = "a\\nb"', "partition must be the name of a partition, not 'a\\nb'"),
        ('[gpu]\nwckey = "a b"', "wckey must be text without spaces, not 'a b'"),
        ('[gpu]\nqos = "a\\u0000b"', "qos must be text without spaces, not 'a\\x00b'"),
        ("[gpu]\nreservation = 1", "reservation must be text without spaces, not 1"),
        ("[gpu]\nexclusive = 1", "exclusive must be true or false, not 1"),
        ('[gpu]\nsetup = "module load cuda"', "setup must be a list of shell lines"),
        ("[gpu]\nsetup = [1]", "setup must be a list of shell lines"),
        ('[gpu]\ncontainer = " "', "container must be the command before python"),
        ('[gpu]\ncontainer = "sh -c \'x"', "container must be the command before python"),
        ('["my gpu"]\nminutes = 10\n[gpu]\nslots = 2', "slots is for the cluster local: give throttle"),
        ("[gpu]\ngpu_memory_gb = 40", "gpu_memory_gb is for jobs with GPUs, and gpus_per_node is 0"),
        ("[gpu]\ngpus_per_node = 8\ngpu_memory_gb = 0", "gpu_memory_gb must be a number above 0, not 0"),
        ('[gpu]\ngpu_type = "a100"', "gpu_type is for jobs with GPUs, and gpus_per_node is 0"),
        ("[gpu]\ncpus_per_gpu = 8", "cpus_per_gpu is for jobs with GPUs"),
        ("[gpu]\ngpus_per_node = 2\ntasks_per_node = 2", "with GPUs there is one process per GPU"),
        ("[gpu]\ngpus_per_node = 2\ncpus_per_task = 4", "cpus_per_task is for jobs without GPUs: give cpus_per_gpu"),
    ],
)
def test_what_is_no_cluster_is_refused_in_one_line(text: str, said: str):
    here(text)
    assert said in refused("gpu")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('"--nice=1"', "sbatch must be a table of options, as in { mail-type = \"FAIL\" }, not '--nice=1'"),
        ('["nice"]', "sbatch must be a table of options"),
        ('{ array = "0-3" }', "sbatch: array has its own place: give the keys throttle and max_array_size"),
        ('{ output = "x" }', "sbatch: output cannot be given: `attention-bench logs` reads where jobs write"),
        ('{ job-name = "x" }', "sbatch: job-name cannot be given: jobs are found again by their names"),
        ('{ job_name = "x" }', "sbatch: job-name cannot be given: "),
        ("{ requeue = true }", "sbatch: requeue cannot be given: "),
        ("{ no-requeue = true }", "sbatch: no-requeue cannot be given: "),
        ('{ signal = "USR1@60" }', "sbatch: signal cannot be given: a job is warned in time to save"),
        ("{ parsable = true }", "sbatch: parsable cannot be given: it changes what sbatch does or prints"),
        ('{ mem = "4G" }', "sbatch: mem has its own place: give the keys memory_gb or memory_per_cpu_gb"),
        ('{ partition = "x" }', "sbatch: partition has its own place: give the key partition"),
        ('{ time = "1:00" }', "sbatch: time has its own place: give the key minutes"),
        ('{ gpus = "a100:2" }', "sbatch: gpus has its own place: give the keys gpus_per_node and gpu_type"),
        ('{ gres = "gpu:2" }', "sbatch: gres must not ask for GPUs: give the keys gpus_per_node and gpu_type"),
        ('{ gres = "tmpdisk:9,gpu" }', "sbatch: gres must not ask for GPUs"),
        ('{ tres-per-task = "gres/gpu:1" }', "sbatch: tres-per-task must not ask for GPUs"),
        # sbatch would take these for the options that they begin.
        ('{ arr = "0-3" }', "sbatch: arr (short for array) has its own place"),
        ('{ job = "x" }', "sbatch: job (short for job-name) cannot be given"),
        ('{ p = "x" }', "sbatch: give the long name of the option 'p', as in mail-type"),
        ('{ "--nice" = 1 }', "sbatch: an option is written without leading dashes, as in mail-type, not '--nice'"),
        ('{ "nice=1" = true }', "sbatch: an option is written without leading dashes"),
        ("{ mail-type = 'A', mail_type = 'B' }", "sbatch: mail-type is given twice"),
        ("{ contiguous = false }", "true for an option without a value, not False; to leave it out, remove it"),
        ('{ comment = "a\\n#SBATCH --array=0-9" }', "sbatch: comment must be text, a number, or true"),
        ('{ comment = "" }', "sbatch: comment must be text, a number, or true"),
        ("{ nice = nan }", "sbatch: nice must be text, a number, or true"),
        ("{ mail-type = ['A'] }", "sbatch: mail-type must be text, a number, or true"),
    ],
)
def test_an_option_of_sbatch_that_cannot_be_given_is_told_its_place(table: str, said: str):
    here(f"[gpu]\nsbatch = {table}")
    assert said in refused("gpu")


def test_any_other_option_of_sbatch_may_be_given():
    here('[gpu]\nsbatch.mail_type = "FAIL"\nsbatch.gres = "tmpdisk:10,gpumem:4"\nsbatch.contiguous = true')
    assert load("gpu").sbatch == {"mail_type": "FAIL", "gres": "tmpdisk:10,gpumem:4", "contiguous": True}
    assert flags(load("gpu").sbatch) == {"mail-type": "FAIL", "gres": "tmpdisk:10,gpumem:4", "contiguous": True}


def test_a_file_that_is_no_text_is_refused():
    Path("clusters.toml").write_bytes(b"\xff")
    assert "clusters.toml is not TOML" in refused("local")
    Path("clusters.toml").unlink()
    Path("clusters.toml").mkdir()
    assert "clusters.toml cannot be read: Is a directory" in refused("local")


@pytest.mark.parametrize(
    "line",
    [
        "minutes = 240",
        'partition = "a"',
        "sbatch = {}",
        "memory_per_cpu_gb = 1",
        "throttle = 2",
        "exclusive = true",
        "gpus_per_node = 1",
    ],
)
def test_local_refuses_what_does_nothing(line: str):
    here(f"[local]\n{line}")
    text = refused("local")
    assert f"{line.split()[0]} has no effect on this machine (allowed: slots)" in text


def test_a_cluster_made_in_python_is_checked_too():
    with pytest.raises(ValueError, match="a name is one word"):
        Cluster("my gpu")
    with pytest.raises(ValueError, match="nodes has no effect on this machine"):
        Cluster("local", nodes=2)
