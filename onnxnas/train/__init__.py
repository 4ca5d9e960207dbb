"""Training of the super-network and of single sub-networks."""

from onnxnas.train.checkpoint import load_weights
from onnxnas.train.evaluate import Judge, evaluate, original
from onnxnas.train.finetune import FineTuned, finetune
from onnxnas.train.glance import Glance
from onnxnas.train.group import Group, joined, threads
from onnxnas.train.lessons import Lessons
from onnxnas.train.loop import train
from onnxnas.train.losses import criterion
from onnxnas.train.optimizer import settled
from onnxnas.train.precision import chosen_device
from onnxnas.train.record import TrainResult
from onnxnas.train.settings import TrainSettings
from onnxnas.train.strategies import STRATEGIES, Strategy
from onnxnas.train.teacher import Ensemble, Teacher, frozen, teacher_of

__all__ = [
    "STRATEGIES",
    "Ensemble",
    "FineTuned",
    "Glance",
    "Group",
    "Judge",
    "Lessons",
    "Strategy",
    "Teacher",
    "TrainResult",
    "TrainSettings",
    "chosen_device",
    "criterion",
    "evaluate",
    "finetune",
    "frozen",
    "joined",
    "load_weights",
    "original",
    "settled",
    "teacher_of",
    "threads",
    "train",
]
