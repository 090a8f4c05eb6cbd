from tests.slurm.cluster import slurm as slurm
from tests.slurm.cluster import slurm_conf as slurm_conf
from tests.slurm.cluster import unaccounted as unaccounted
