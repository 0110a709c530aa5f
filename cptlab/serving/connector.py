"""A KV connector for vLLM that fills the first M positions of a request with a trained prefix.

    vllm serve MODEL --kv-transfer-config '{"kv_connector": "PrefixConnector", "kv_role": "kv_consumer",
        "kv_connector_module_path": "cptlab.serving.connector",
        "kv_connector_extra_config": {"prefixes": {"tuned": "RUN/prefix"}}}'

A prompt is M token ids that stand for the prefix, whatever they are, and then the real ones. The request's `cache_salt` says
which prefix it is (`ServedPrefix.salt`); without one, the model runs as it is. `cptlab serve` adds both.

The scheduler takes the M positions as computed elsewhere, so real tokens start at position M, as in training. Before the
forward pass, each layer's own kernel writes the prefix's keys and values into the request's blocks as it writes those of
tokens, so any layout of the cache is right. Keys are stored behind the rotary embedding, and so is the prefix: nothing is
rotated. Blocks are shared between requests with the same salt only; preempted requests are filled again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata, KVConnectorRole
from vllm.logger import init_logger

from cptlab.errors import UserError
from cptlab.serving.checks import check_cache, check_prefixes
from cptlab.serving.served_prefix import ServedPrefix, load_served, prefix_of

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.forward_context import ForwardContext
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.request import Request


logger = init_logger(__name__)


@dataclass
class Load:
    """Write positions `start` to M of the prefix with this salt into these blocks. `salt` None: the request must fail."""

    salt: str | None
    start: int
    blocks: list[int]


@dataclass
class Loads(KVConnectorMetadata):
    """What the workers load before the next forward pass."""

    loads: list[Load] = field(default_factory=list)


class PrefixConnector(KVConnectorBase_V1):
    """Loads trained prefixes into requests. One object plans in the scheduler, one in each worker writes."""

    def __init__(self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        served = load_served(self._kv_transfer_config.get_from_extra_config("prefixes", {}))
        check_prefixes(vllm_config, served)
        self._block_size = check_cache(vllm_config, kv_cache_config)
        self._prefixes = {one.salt: one for one in served}
        self._refused: set[str] = set()  # of the scheduler: requests that must fail
        self._planned: list[Load] = []  # of the scheduler, for the step that it plans
        self._failed: set[int] = set()  # of a worker: blocks of requests that cannot have their prefix
        self._tables: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}  # of a worker: by salt and layer

    # In the scheduler

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int, bool]:
        """Return how many positions of the prefix are not in blocks of an earlier request: M, less those, and never later."""
        prefix = None
        if request.request_id not in self._refused:
            try:
                prefix = self._checked(request)
            except UserError as error:
                logger.error("Request %s fails: %s", request.request_id, error)
                self._refused.add(request.request_id)
        if request.request_id in self._refused:
            request.skip_reading_prefix_cache = False  # or vLLM would pass over the load, which is what fails
            return (1 if num_computed_tokens == 0 and request.num_prompt_tokens > 1 else 0), False
        return (max(0, prefix.length - num_computed_tokens) if prefix else 0), False

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        """Plan the load, now that the request has its blocks."""
        if not num_external_tokens:
            return
        (mine,) = blocks.get_block_ids()
        if request.request_id in self._refused:
            self._planned.append(Load(None, 0, mine[:1]))
            return
        prefix = self._checked(request)
        assert prefix is not None
        used = -(-prefix.length // self._block_size)
        self._planned.append(Load(prefix.salt, prefix.length - num_external_tokens, mine[:used]))

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> Loads:
        planned, self._planned = self._planned, []
        return Loads(planned)

    def request_finished(self, request: Request, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        self._refused.discard(request.request_id)
        return False, None

    def _checked(self, request: Request) -> ServedPrefix | None:
        """Return the prefix of a request. Raises UserError where it cannot have the one that it asks for."""
        prefix = prefix_of(request.cache_salt, self._prefixes)
        if prefix is not None and request.num_prompt_tokens <= prefix.length:
            raise UserError(
                f"Its prompt has {request.num_prompt_tokens} tokens, and the first {prefix.length} stand for the prefix. Put them "
                "before the real ones."
            )
        if prefix is not None and request.skip_reading_prefix_cache:
            raise UserError("It asks for log-probabilities of the prompt, which are not computed for a prefix.")
        return prefix

    # In the workers

    def register_kv_caches(self, kv_caches: dict[str, Tensor]) -> None:
        """Raise UserError where a layer's kernel cannot write keys and values apart from its forward pass."""
        for name in kv_caches:
            layer: Any = self._vllm_config.compilation_config.static_forward_context[name]
            if not hasattr(layer.impl, "do_kv_cache_update"):
                raise UserError(
                    f"The attention of layer {name} ({type(layer.impl).__name__}) writes no keys and values but its own, so no "
                    "prefix can be put before them. Choose another backend of vLLM: --attention-backend=FLASH_ATTN."
                )

    def start_load_kv(self, forward_context: ForwardContext, **kwargs: Any) -> None:
        """Write the planned prefixes into the cache of every layer."""
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, Loads)
        self._failed = {block for load in metadata.loads if load.salt is None for block in load.blocks}
        loads = [load for load in metadata.loads if load.salt is not None]
        if not loads:
            return
        slots = torch.cat([self._slots(load) for load in loads])
        for name, layer in forward_context.no_compile_layers.items():
            if getattr(layer, "kv_cache", None) is None:
                continue
            parts = [[part[load.start :] for part in self._table(load.salt, name, layer)] for load in loads]
            key, value = (torch.cat(of_all) for of_all in zip(*parts, strict=True))
            layer.impl.do_kv_cache_update(layer, key, value, layer.kv_cache, slots.to(key.device))

    def get_block_ids_with_load_errors(self) -> set[int]:
        failed, self._failed = self._failed, set()
        return failed

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Return: `start_load_kv` has written all layers."""

    def save_kv_layer(self, layer_name: str, kv_layer: Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        """Save nothing: prefixes are only read."""

    def wait_for_save(self) -> None:
        """Return: nothing is saved."""

    def _slots(self, load: Load) -> Tensor:
        positions = torch.arange(load.start, self._prefixes[str(load.salt)].length)
        return (
            torch.tensor(load.blocks)[positions // self._block_size] * self._block_size + positions % self._block_size
        )

    def _table(self, salt: str | None, name: str, layer: Any) -> tuple[Tensor, Tensor]:
        """Return keys and values [M, heads of this worker, head_dim] of a layer, on its device and in the model's precision."""
        if (str(salt), name) not in self._tables:
            ranks, rank = get_tensor_model_parallel_world_size(), get_tensor_model_parallel_rank()
            key, value = self._prefixes[str(salt)].layer(_layer_index(name), rank, ranks)
            kind = {"device": layer.kv_cache.device, "dtype": self._vllm_config.model_config.dtype}
            self._tables[str(salt), name] = key.to(**kind), value.to(**kind)
        return self._tables[str(salt), name]


def _layer_index(name: str) -> int:
    """Return which layer of the model an attention layer belongs to, from its name, such as model.layers.3.self_attn.attn."""
    (index,) = (part for part in name.split(".") if part.isdigit())
    return int(index)
