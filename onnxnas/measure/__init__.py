"""Latency, throughput and memory of models, measured in the runtime and on the machine that will serve them.

Native code runs in a child process only: nothing here imports a runtime, or torch, in this process.
"""

from onnxnas.measure.bench import bench
from onnxnas.measure.cores import available_cores, memory_available
from onnxnas.measure.doctor import doctor
from onnxnas.measure.environment import environment, incomparable
from onnxnas.measure.measurer import CandidateError, Latency, Measurer, Served
from onnxnas.measure.protocol import LONG, SHORT, Protocol, distinguishable
from onnxnas.measure.registry import get_runtime, resolve_settings, runtime_names
from onnxnas.measure.runtime import Runtime, Session, Target

__all__ = [
    "LONG",
    "SHORT",
    "CandidateError",
    "Latency",
    "Measurer",
    "Protocol",
    "Runtime",
    "Served",
    "Session",
    "Target",
    "available_cores",
    "bench",
    "distinguishable",
    "doctor",
    "environment",
    "get_runtime",
    "incomparable",
    "memory_available",
    "resolve_settings",
    "runtime_names",
]
