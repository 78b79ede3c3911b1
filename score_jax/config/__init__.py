"""Settings, from a config file and the command line to frozen dataclasses.

settings holds the dataclasses, with their defaults and choices; build makes them of a ConfigDict;
checks refuses what cannot work together; command_line reads --config=FILE and --config.KEY=VALUE.

Here is what a config file imports; the package imports from the files.
"""

from score_jax.config.build import to_config_dict as to_config_dict
from score_jax.config.settings import CheckpointSettings as CheckpointSettings
from score_jax.config.settings import CollectSettings as CollectSettings
from score_jax.config.settings import CompileSettings as CompileSettings
from score_jax.config.settings import DocumentSettings as DocumentSettings
from score_jax.config.settings import EvaluationSettings as EvaluationSettings
from score_jax.config.settings import FunctionSettings as FunctionSettings
from score_jax.config.settings import LoggingSettings as LoggingSettings
from score_jax.config.settings import LoraSettings as LoraSettings
from score_jax.config.settings import MemorySettings as MemorySettings
from score_jax.config.settings import MeshSettings as MeshSettings
from score_jax.config.settings import ModelSettings as ModelSettings
from score_jax.config.settings import OptimizerSettings as OptimizerSettings
from score_jax.config.settings import ProblemSettings as ProblemSettings
from score_jax.config.settings import RewardSettings as RewardSettings
from score_jax.config.settings import RolloutSettings as RolloutSettings
from score_jax.config.settings import ScalingSettings as ScalingSettings
from score_jax.config.settings import Settings as Settings
from score_jax.config.settings import SourceSettings as SourceSettings
from score_jax.config.settings import StageSettings as StageSettings
from score_jax.config.settings import WatchdogSettings as WatchdogSettings
