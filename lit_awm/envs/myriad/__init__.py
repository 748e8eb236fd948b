"""Systems of the Myriad testbed (Howe et al., 2022, arXiv:2202.10600), one file each."""

from lit_awm.envs.myriad.bear_populations import BearPopulations
from lit_awm.envs.myriad.bioreactor import Bioreactor
from lit_awm.envs.myriad.cancer_treatment import CancerTreatment
from lit_awm.envs.myriad.hiv_treatment import HivTreatment
from lit_awm.envs.myriad.mould_fungicide import MouldFungicide

__all__ = ["BearPopulations", "Bioreactor", "CancerTreatment", "HivTreatment", "MouldFungicide"]
