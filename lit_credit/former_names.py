"""Import paths of the version before, which work for one release.

``lit_credit.utils.history`` is ``lit_credit.runs.history`` now, and both name one module. Saved
checkpoints and configurations name classes by such paths.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = [
    "current_path",
    "former_names",
    "import_former_paths",
    "named_by_a_file",
    "with_current_paths",
]

_MODULES = dict(
    line.split()
    for line in """
blame cli.blame
boundary cli.boundary
callbacks.adder_anatomy studies.addition.anatomy
callbacks.adder_measures studies.addition.findings
callbacks.adder_tables studies.addition.findings
callbacks.attention callbacks.heads.attention
callbacks.attention_maps callbacks.heads.attention_maps
callbacks.attention_proof callbacks.heads.attention_proof
callbacks.attribution_proof callbacks.heads.attribution_proof
callbacks.base.attempts callbacks.base.failures
callbacks.base.declared callbacks.base.report
callbacks.base.explained callbacks.base.failing_loss
callbacks.base.gathered callbacks.base.values
callbacks.base.heads callbacks.base.values
callbacks.base.memory callbacks.base.failures
callbacks.base.missing callbacks.base.failures
callbacks.base.undefined callbacks.base.failures
callbacks.circuit_levels callbacks.heads.circuit_levels
callbacks.circuit_matching callbacks.heads.circuit_matching
callbacks.circuit_pairs callbacks.heads.circuit_pairs
callbacks.circuit_proof callbacks.heads.circuit_proof
callbacks.credit_alignment callbacks.credit.credit_alignment
callbacks.embedding_geometry callbacks.representations.embedding_geometry
callbacks.exact_divergence callbacks.distributions.exact_divergence
callbacks.finite_guard callbacks.training.finite_guard
callbacks.finite_search callbacks.training.finite_search
callbacks.finite_update callbacks.training.finite_update
callbacks.frozen_parameters callbacks.training.frozen_parameters
callbacks.gradient_norms callbacks.credit.gradient_norms
callbacks.head_attribution callbacks.heads.head_attribution
callbacks.head_behaviour callbacks.heads.head_behaviour
callbacks.head_logits callbacks.heads.head_logits
callbacks.head_targets callbacks.heads.head_targets
callbacks.log_prob_theory studies.ngram.theory
callbacks.member_checkpoints callbacks.training.member_checkpoints
callbacks.metric_history callbacks.training.metric_history
callbacks.part_freezing callbacks.training.part_freezing
callbacks.points callbacks.base.points
callbacks.reference callbacks.credit.reference
callbacks.reference_validity callbacks.credit.reference_validity
callbacks.residual_norms callbacks.representations.residual_norms
callbacks.samples callbacks.base.values
callbacks.scale_stability callbacks.credit.scale_stability
callbacks.softmax_jacobian callbacks.heads.softmax_jacobian
callbacks.softmax_reading callbacks.heads.softmax_reading
callbacks.staged_training callbacks.training.staged_training
callbacks.subspace_distance callbacks.representations.subspace_distance
callbacks.symbol_attention callbacks.heads.symbol_attention
callbacks.text_samples callbacks.training.text_samples
callbacks.weight_alignment callbacks.credit.weight_alignment
class_rules cli.class_rules
compare cli.compare
datamodules.addition studies.addition.data
datamodules.copying studies.copying.data
datamodules.ngram studies.ngram.data
datamodules.ngram_distributions studies.ngram.distributions
feedback.credit feedback.credits
functional.digit_readout studies.addition.functions
functional.log_prob_theory functional.log_probs
functional.min_norm_coordinates studies.ngram.functions
functional.ngram studies.ngram.functions
functional.optimal_contexts studies.ngram.functions
functional.place_value studies.addition.functions
functional.sum_errors studies.addition.functions
loggers trainer.loggers
models.attention_only studies.ngram.model
models.context_mlp studies.ngram.baselines
models.low_rank studies.ngram.baselines
models.micro_adder studies.addition.model
models.micro_adder_fast studies.addition.fast_pass
models.micro_adder_parts studies.addition.model
models.parallel_attention studies.ngram.model
older_configs cli.older_configs
parser cli.parser
plotting._adder_attention studies.addition.sheet
plotting._adder_errors studies.addition.sheet
plotting._adder_geometry studies.addition.sheet
plotting.adder_findings studies.addition.findings
plotting.adder_sheet studies.addition.sheet
plotting.attention_grid callbacks.heads.attention_grid
plotting.attribution_figure callbacks.heads.attribution_figure
plotting.circuit_figure callbacks.heads.circuit_figure
plotting.comparison_figure comparison.figure
plotting.divergence_figure callbacks.distributions.divergence_figure
plotting.parameter_bars callbacks.credit.parameter_bars
plotting.symbol_maps callbacks.heads.symbol_maps
plotting.theory_figure studies.ngram.theory
rules.checkpointed rules.checkpoints.checkpointed
rules.clipping rules.optimization
rules.described rules.checkpoints.described
rules.evaluated rules.evaluation.evaluated
rules.metrics rules.evaluation.metrics
rules.monitors rules.evaluation.monitors
rules.resume rules.checkpoints.resume
rules.rows rules.evaluation.metrics
rules.run_length rules.schedule_checks
rules.weight_modes rules.evaluation.weight_modes
starting cli.starting
sweep cli.sweep
sweep.cell cli.sweep.cell
sweep.command cli.sweep.command
sweep.executors cli.sweep.executors
sweep.grid cli.sweep.grid
sweep.run cli.sweep.run
sweep.table cli.sweep.table
tasks.addition studies.addition.task
tasks.addition_metrics studies.addition.task
tasks.ngram_prediction studies.ngram.task
tasks.pattern_copying studies.copying.task
trainer_options cli.trainer_options
utils.activation_checkpoints inspect.activation_checkpoints
utils.adder_parts studies.addition.model
utils.addition_layout studies.addition.layout
utils.addition_sampler studies.addition.data
utils.affine feedback.affine
utils.arguments cli.arguments
utils.attention inspect.attention.recording
utils.attention_axes inspect.attention.axes
utils.attention_check inspect.attention.unseen
utils.attention_functions inspect.attention.functions
utils.attention_heads inspect.attention.heads
utils.attention_streams inspect.attention.streams
utils.batch_loss inspect.batch_loss
utils.capture inspect.capture
utils.carries studies.addition.layout
utils.checkpoint_io runs.checkpoint_io
utils.checkpoints runs.checkpoints
utils.contexts inspect.contexts
utils.curves_again trainer.curves_again
utils.device_search rules.optimization
utils.direct_path inspect.attention.direct_path
utils.double_mode callbacks.credit.double_mode
utils.double_precision callbacks.credit.double_precision
utils.dry_step callbacks.training.dry_step
utils.exact_backward inspect.exact_backward
utils.files runs.files
utils.final_norm inspect.attention.final_norm
utils.finite inspect.finite
utils.finite_trace callbacks.training.finite_trace
utils.foreign_weights runs.foreign_weights
utils.frozen_forward inspect.attention.frozen_forward
utils.guard inspect.state.guard
utils.head_outputs inspect.attention.head_outputs
utils.head_projections inspect.attention.projections
utils.head_proof inspect.attention.proof
utils.head_recompute inspect.attention.recompute
utils.head_runs inspect.attention.runs
utils.head_surroundings inspect.attention.surroundings
utils.head_weights inspect.attention.head_weights
utils.held_boxes inspect.state.held_boxes
utils.held_kinds inspect.state.held_kinds
utils.held_state inspect.state.held_state
utils.history runs.history
utils.history_again runs.history_again
utils.history_rows runs.history_rows
utils.hyperparameters rules.checkpoints.hyperparameters
utils.jsonargparse_internals cli.class_hooks
utils.lock runs.lock
utils.logging trainer.logging
utils.matrices inspect.matrices
utils.missed_validation trainer.missed_validation
utils.ngram studies.ngram.distributions
utils.norm_forms inspect.attention.norm_forms
utils.norms_in_front inspect.attention.norms_in_front
utils.place_slots studies.addition.layout
utils.probe inspect.probe.probe
utils.probe_loader inspect.probe.probe_loader
utils.rank_zero trainer.rank_zero
utils.rows inspect.probe.rows
utils.run_checkpoints runs.run_checkpoints
utils.run_config runs.run_config
utils.runs runs.run_folder
utils.score_norms inspect.attention.score_norms
utils.score_ways inspect.attention.score_ways
utils.series runs.series
utils.short_names plotting.short_names
utils.stacked_heads inspect.attention.stacked_heads
utils.stand_ins inspect.state.stand_ins
utils.storage_copies inspect.state.held_state
utils.table runs.table
utils.trainer trainer.trainer
utils.trusted_classes runs.trusted_classes
utils.undisturbed inspect.probe.undisturbed
utils.unfrozen callbacks.base.chunk
utils.unit_names inspect.unit_names
utils.unit_passage inspect.unit_passage
utils.updates inspect.updates
utils.watched trainer.watched
utils.yaml_files runs.yaml_files
""".strip().splitlines()
)
"""A module's path of before, and its path now; both without ``lit_credit.``."""

_NAMES = dict(
    line.split()
    for line in """
callbacks.AdderAnatomy studies.addition.anatomy
callbacks.LogProbTheory studies.ngram.theory
callbacks.base.named.as_numbers callbacks.base.values
callbacks.base.named.named callbacks.base.failures
datamodules.Addition studies.addition.data
datamodules.AlmostRankD studies.ngram.distributions
datamodules.Copying studies.copying.data
datamodules.LastPosition studies.ngram.distributions
datamodules.NGram studies.ngram.data
datamodules.NGramDistribution studies.ngram.distributions
datamodules.PowerUnif studies.ngram.distributions
datamodules.RankD studies.ngram.distributions
feedback.credit.Broadcast feedback.broadcast
functional.DigitReadout studies.addition.functions
functional.best_ratio studies.addition.functions
functional.column_errors studies.addition.functions
functional.conditional_entropy studies.ngram.functions
functional.digit_differences studies.addition.functions
functional.digit_readout studies.addition.functions
functional.exact_by_run studies.addition.functions
functional.force_ratio studies.addition.functions
functional.log_prob_theory.log_ratio_fluctuation studies.ngram.functions
functional.log_prob_theory.low_rank_log_probs studies.ngram.functions
functional.log_prob_theory.second_order_contexts studies.ngram.functions
functional.log_ratio_fluctuation studies.ngram.functions
functional.low_rank_log_probs studies.ngram.functions
functional.max_accuracy studies.ngram.functions
functional.min_norm_coordinates studies.ngram.functions
functional.optimal_contexts studies.ngram.functions
functional.place_value_ratio studies.addition.functions
functional.random_baseline studies.ngram.functions
functional.second_order_contexts studies.ngram.functions
functional.without_source studies.addition.functions
models.AttentionOnly studies.ngram.model
models.ContextMLP studies.ngram.baselines
models.LowRank studies.ngram.baselines
models.MicroAdder studies.addition.model
models.ParallelAttention studies.ngram.model
models.SeparateHeads studies.ngram.model
plotting.AdderFindings studies.addition.findings
plotting.adder_sheet studies.addition.sheet
plotting.attention_grid callbacks.heads.attention_grid
plotting.attribution_figure callbacks.heads.attribution_figure
plotting.circuit_figure callbacks.heads.circuit_figure
plotting.comparison_figure comparison.figure
plotting.divergence_figure callbacks.distributions.divergence_figure
plotting.parameter_bars callbacks.credit.parameter_bars
plotting.symbol_maps callbacks.heads.symbol_maps
plotting.theory_figure studies.ngram.theory
rules.resume.configuration rules.checkpoints.described
tasks.AdditionTask studies.addition.task
tasks.ContextDivergence studies.ngram.task
tasks.CopyError studies.copying.task
tasks.CopyTarget studies.copying.task
tasks.ExpectedAccuracy studies.ngram.task
tasks.Margin studies.ngram.task
tasks.MemorizedContexts studies.ngram.task
tasks.NGramPrediction studies.ngram.task
tasks.NGramTarget studies.ngram.task
tasks.PatternCopying studies.copying.task
sweep.run.asked_configuration cli.sweep.plan
utils.logging.logger_due trainer.trainer
utils.rows.proved_layout inspect.probe.layout
utils.runs.HISTORIES comparison.known
utils.series.match_ranks callbacks.heads.circuit_levels
utils.series.run_curve comparison.known
""".strip().splitlines()
)
"""A name that a package or module had before, and the module that defines it now."""

_SPLIT = {
    *("callbacks.base.named", "feedback.credit", "rules.resume"),
    *("utils.logging", "utils.rows", "utils.runs", "utils.series"),
}
"""Modules of before whose names lie in several modules now: where ``_NAMES`` says, or else where
``_MODULES`` says.
"""


def current_path(path: str) -> str:
    """The import path of today for one of before; any other path as it is.

    Example:
        >>> current_path("lit_credit.callbacks.AdderAnatomy")
        'lit_credit.studies.addition.AdderAnatomy'
        >>> current_path("lit_credit.utils.history.History")
        'lit_credit.runs.history.History'
    """
    package, _, rest = path.partition(".")
    if package != "lit_credit":
        return path
    module, _, name = rest.rpartition(".")
    if rest in _NAMES:
        home = _NAMES[rest] if "." in module else ".".join(_NAMES[rest].split(".")[:2])
        return f"lit_credit.{home}.{name}"
    if rest in _MODULES:
        return f"lit_credit.{_MODULES[rest]}"
    return f"lit_credit.{_MODULES[module]}.{name}" if module in _MODULES else path


def with_current_paths(config: Any) -> Any:
    """A configuration whose ``class_path`` entries are the import paths of today.

    Args:
        config: nested mappings and lists, as read from YAML.

    Example:
        >>> with_current_paths({"data": {"class_path": "lit_credit.datamodules.NGram"}})
        {'data': {'class_path': 'lit_credit.studies.ngram.NGram'}}
    """
    if isinstance(config, list):
        return [with_current_paths(item) for item in config]
    if not isinstance(config, dict):
        return config
    new = {key: with_current_paths(item) for key, item in config.items()}
    if isinstance(path := new.get("class_path"), str):
        new["class_path"] = current_path(path)
    return new


def former_names(package: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for a package or module, which finds the names that have left it.

    Args:
        package: ``__name__`` of the package or module.

    Returns:
        A function of a name. It warns of a path that will go, and raises ``AttributeError`` for
        a name that the package never had.
    """
    prefix = package.partition(".")[2]

    def __getattr__(name: str) -> Any:
        former = f"{prefix}.{name}"
        home = _NAMES.get(former)
        if home is None and (former in _MODULES or former in _SPLIT):
            return import_module(f"{package}.{name}")
        if home is None and prefix in _SPLIT and not name.startswith("__"):
            home = _MODULES.get(prefix)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        _warn(f"{package}.{name}")
        return getattr(import_module(f"lit_credit.{home}"), name)

    return __getattr__


@contextmanager
def named_by_a_file() -> Iterator[None]:
    """Former paths are imported without a warning: a saved file names them, and not a person."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*The former path will go", DeprecationWarning)
        yield


def import_former_paths() -> None:
    """Let ``import`` find modules under their paths of before, from now on."""
    if not any(isinstance(finder, _FormerPaths) for finder in sys.meta_path):
        sys.meta_path.insert(0, _FormerPaths())


def _warn(path: str) -> None:
    warnings.warn(
        f"{path} is {current_path(path)} now. The former path will go with the next release.",
        DeprecationWarning,
        stacklevel=3,
    )


class _KeepsFunctions(ModuleType):
    """A package of which a function and a former module have one name: the function has it.

    Python would bind the module there when it is imported.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        former = f"{self.__name__.partition('.')[2]}.{name}"
        if not (isinstance(value, ModuleType) and former in _NAMES):
            super().__setattr__(name, value)


class _FormerPaths(MetaPathFinder, Loader):
    """Finds a module under its path of before: the very module of today, not a copy.

    One that was split has the names that lie in several modules now.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, rest = fullname.partition(".")
        if package != "lit_credit" or not (rest in _MODULES or rest in _SPLIT):
            return None
        return ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        path = module.__name__
        parent = path.rpartition(".")[0]
        if path.partition(".")[2] in _NAMES:
            sys.modules[parent].__class__ = _KeepsFunctions
        if path.partition(".")[2] in _SPLIT:
            module.__dict__["__getattr__"] = former_names(path)
            return
        _warn(path)
        sys.modules[path] = import_module(f"lit_credit.{_MODULES[path.partition('.')[2]]}")
