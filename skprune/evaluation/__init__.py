"""A trained net as a game, and what is done to its weights without training.

`_evaluator` owns the game: it cuts the module (`_split`), deals the samples to blocks
(`_lineup`), chooses a payoff (`_payoffs`) and a backend: for tails of Linear layers
`_compiled`, by Numba (`_kernels` over `_tail*` over `_lane*`), or `_triton_backend`, by
Triton (`_triton*`); for columns of sparse samples `_sparse_inputs` (`_stored_entries`,
`_input_tail`); for any module `_batched`, which reruns stages of it (`_division`,
`_stages`) or shrinks it (`_compaction`). `_reconstruction` plays layers by moments
(`_moments`), `_repair` refits survivors in closed form, `_transplant` puts a module
back into a skorch net, `_uncertainty` finds the critical size, `_baselines` needs no
game. For training there are `_batches`, `_sparse_rows` (samples as tensors),
`_column_adamw`, `_mlp`, `_sample_weights` and `_sized_nets`, skorch nets that take
their widths from the data.
"""

from skprune.evaluation._baselines import (
    random_scores,
    taylor_scores,
    weight_gradient_scores,
    weight_norm_scores,
)
from skprune.evaluation._batched import BLOCK_SIZE
from skprune.evaluation._batches import (
    Batch,
    TensorBatches,
    cut_batches,
    row_numbers,
)
from skprune.evaluation._class_weights import class_weights_of, encoded_class_weight
from skprune.evaluation._column_adamw import ColumnAdamW
from skprune.evaluation._data import (
    batches_of,
    first_rows,
    net_targets,
    plain_array,
    take_rows,
)
from skprune.evaluation._device_queue import queued_for
from skprune.evaluation._evaluator import CoalitionEvaluator, check_net, check_threshold
from skprune.evaluation._mlp import (
    ACTIVATIONS,
    build_mlp,
    device_named,
    is_mlp,
    mlp_classifier,
    mlp_regressor,
    neurons_of,
)
from skprune.evaluation._payoffs import (
    PAYOFFS,
    Task,
    predictions,
    resolve_payoff,
    task_of,
    weighted_by_class,
)
from skprune.evaluation._reconstruction import LayerGames, check_reconstructible
from skprune.evaluation._repair import REPAIRS, Repairer
from skprune.evaluation._sample_weights import loss_of_samples, weighted_samples
from skprune.evaluation._samples import (
    Samples,
    clear_gain,
    played_payoff,
    played_payoffs,
    sample_logits,
)
from skprune.evaluation._sparse_rows import SparseRows, store_by_column
from skprune.evaluation._split import SplitModule, split_module
from skprune.evaluation._trace import last_linear
from skprune.evaluation._transplant import (
    adapts,
    adopt_training,
    check_shrinkable,
    learns,
    optimizers_of,
    retrain,
    shrink,
    transplant,
    twin_of,
)
from skprune.evaluation._uncertainty import (
    CriticalSize,
    UncertaintyBands,
    critical_size,
    uncertainty_bands,
)

__all__ = [
    "ACTIVATIONS",
    "BLOCK_SIZE",
    "Batch",
    "CoalitionEvaluator",
    "ColumnAdamW",
    "CriticalSize",
    "LayerGames",
    "PAYOFFS",
    "REPAIRS",
    "Repairer",
    "Samples",
    "SparseRows",
    "SplitModule",
    "Task",
    "TensorBatches",
    "UncertaintyBands",
    "adapts",
    "adopt_training",
    "batches_of",
    "build_mlp",
    "check_net",
    "check_reconstructible",
    "check_shrinkable",
    "check_threshold",
    "class_weights_of",
    "clear_gain",
    "critical_size",
    "cut_batches",
    "device_named",
    "encoded_class_weight",
    "first_rows",
    "is_mlp",
    "last_linear",
    "learns",
    "loss_of_samples",
    "mlp_classifier",
    "mlp_regressor",
    "net_targets",
    "neurons_of",
    "optimizers_of",
    "plain_array",
    "played_payoff",
    "played_payoffs",
    "predictions",
    "queued_for",
    "random_scores",
    "resolve_payoff",
    "retrain",
    "row_numbers",
    "sample_logits",
    "shrink",
    "split_module",
    "store_by_column",
    "take_rows",
    "task_of",
    "taylor_scores",
    "transplant",
    "twin_of",
    "uncertainty_bands",
    "weight_gradient_scores",
    "weight_norm_scores",
    "weighted_by_class",
    "weighted_samples",
]
