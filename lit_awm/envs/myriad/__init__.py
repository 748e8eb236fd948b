"""The systems of the Myriad testbed (Howe et al., 2022, arXiv:2202.10600), one file each."""

from lit_awm.envs.myriad.bacteria import Bacteria
from lit_awm.envs.myriad.bear_populations import BearPopulations
from lit_awm.envs.myriad.bioreactor import Bioreactor
from lit_awm.envs.myriad.cancer_treatment import CancerTreatment
from lit_awm.envs.myriad.cartpole import CartPole
from lit_awm.envs.myriad.epidemic_seirn import EpidemicSeirn
from lit_awm.envs.myriad.glucose import Glucose
from lit_awm.envs.myriad.harvest import Harvest
from lit_awm.envs.myriad.hiv_treatment import HivTreatment
from lit_awm.envs.myriad.invasive_plant import InvasivePlant
from lit_awm.envs.myriad.mould_fungicide import MouldFungicide
from lit_awm.envs.myriad.mountain_car import MountainCar
from lit_awm.envs.myriad.pendulum import Pendulum
from lit_awm.envs.myriad.predator_prey import PredatorPrey
from lit_awm.envs.myriad.rocket_landing import RocketLanding
from lit_awm.envs.myriad.seir import Seir
from lit_awm.envs.myriad.simple_case import SimpleCase
from lit_awm.envs.myriad.simple_case_with_bounds import SimpleCaseWithBounds
from lit_awm.envs.myriad.timber_harvest import TimberHarvest
from lit_awm.envs.myriad.tumour import Tumour
from lit_awm.envs.myriad.van_der_pol import VanDerPol

__all__ = [
    "Bacteria",
    "BearPopulations",
    "Bioreactor",
    "CancerTreatment",
    "CartPole",
    "EpidemicSeirn",
    "Glucose",
    "Harvest",
    "HivTreatment",
    "InvasivePlant",
    "MouldFungicide",
    "MountainCar",
    "Pendulum",
    "PredatorPrey",
    "RocketLanding",
    "Seir",
    "SimpleCase",
    "SimpleCaseWithBounds",
    "TimberHarvest",
    "Tumour",
    "VanDerPol",
]
