"""What this pack asks of ComfyUI's models: the only file that imports ``comfy``. Folders and server have their own.

Written against ComfyUI 0.3.75 to 0.38: differences are found by feature, never by version number.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.quant_ops
import comfy.sd
import comfy.utils
import comfy.weight_adapter
import torch

from ..engine.choice import choose, machine_of
from ..engine.formats import is_held, loadable, require_device, require_loadable, require_pre_quant_scale
from ..engine.plan import Target
from ..engine.progress import Progress
from ..engine.tensors import FP8_DTYPES, InMemory, TensorInfo, TensorSource
from ..engine.texts.say import refuse
from .again import identity_of_model
from .facts import KeyMap, ModelFacts, linear_weights
from .folders import embedding_folders

NET = "diffusion_model."
LEDGER = "lora_foundry"  # attachment on every MODEL this pack makes
CACHED = "lora_foundry_file"  # attachment that keeps a MODEL's file from being evicted
READ_TO_DETECT = 8192  # detection may look at the values of small tensors (v-prediction markers, norm biases)
EDGE = 4096


# --- progress


def progress() -> Progress:
    """A callback that moves the node's progress bar and raises when the user pressed Cancel."""
    bar = comfy.utils.ProgressBar(1)

    def step(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if total:
            bar.update_absolute(done, total)

    return step


def compute_device() -> torch.device:
    """Where ComfyUI computes, if that is CUDA or ROCm; other devices lack fp8 or float64, so the CPU does it there."""
    device: torch.device = comfy.model_management.get_torch_device()
    return device if device.type == "cuda" else torch.device("cpu")


def why_cpu() -> str:
    """Why sums are taken on the CPU beside another device; empty where there is none, or it is used."""
    kind = comfy.model_management.get_torch_device().type
    if kind in ("cpu", "cuda"):
        return ""
    return f"ComfyUI computes on {kind}, which lacks fp8 or float64: this was baked on the CPU."


@contextmanager
def borrowed(size: int) -> Iterator[torch.device]:
    """Where a bake runs that takes ``size`` bytes of a GPU: the host makes room for it, and is given it back."""
    device = compute_device()
    if device.type == "cpu":
        yield device
        return
    comfy.model_management.free_memory(size, device)
    try:
        yield device
    finally:
        comfy.model_management.soft_empty_cache()


# --- what the host knows of a model


def detection_tensors(source: TensorSource) -> dict[str, torch.Tensor]:
    """A state dict for the host's detection: meta tensors, and the real values of the small ones."""
    return {
        info.name: source.read(info.name)
        if len(info.shape) < 2 and info.nbytes <= READ_TO_DETECT
        else torch.empty(info.shape, dtype=info.dtype, device="meta")
        for info in source.tensors.values()
    }


def file_facts(source: TensorSource) -> ModelFacts:
    """What the host makes of a file, from a model without weights (meta device) built by its own detection."""
    tensors = detection_tensors(source)
    config = comfy.model_detection.model_config_from_unet(dict(tensors), "")
    if config is None:
        raise refuse("host.unknown_model", base=source.label)
    dtype = comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(tensors),
        supported_dtypes=list(config.supported_inference_dtypes),
        weight_dtype=comfy.utils.weight_dtype(tensors),
    )
    config.set_inference_dtype(dtype, None)
    model = config.get_model(dict(tensors), "", device="meta")
    keys = comfy.lora.model_lora_keys_unet(model, {})
    return ModelFacts(keys, renames(config, tensors), linear_weights(model.diffusion_model), dtype)


def renames(config: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Model name -> file name, by following each tensor through the host's own renaming."""
    file_names = {id(tensor): name for name, tensor in tensors.items()}
    processed = config.process_unet_state_dict(dict(tensors))
    return {name: file_names[id(tensor)] for name, tensor in processed.items() if id(tensor) in file_names}


def model_facts(model: Any) -> ModelFacts:
    """What the host makes of a loaded MODEL."""
    names = {key.removeprefix(NET): key.removeprefix(NET) for key in model.model_state_dict() if key.startswith(NET)}
    net = model.model.diffusion_model
    return ModelFacts(
        comfy.lora.model_lora_keys_unet(model.model, {}), names, linear_weights(net), model.model.get_dtype()
    )


def sampling_markers(model: Any) -> dict[str, torch.Tensor]:
    """The tensors beside an SDXL network by which ComfyUI knows how it samples; a loaded MODEL no longer holds them.

    What ``SDXL.model_type`` of comfy/supported_models.py asks for, as its own checkpoint saver writes it.
    """
    if not isinstance(model.model, comfy.model_base.SDXL):
        return {}
    kind, settings = model.model.model_type.name, model.model.model_config.sampling_settings
    if kind == "V_PREDICTION":
        return {name: torch.empty(0) for name in ("v_pred", "ztsnr")[: 2 if settings.get("zsnr") else 1]}
    if kind == "V_PREDICTION_EDM":
        ends = ("sigma_max", "sigma_min")
        return {f"edm_vpred.{end}": torch.tensor(float(settings[end])) for end in ends if end in settings}
    if kind == "EDM":
        latents = model.model.latent_format
        return {"edm_mean": latents.latents_mean, "edm_std": latents.latents_std}
    return {}


def target_of(entry: Any) -> Target | None:
    """A value of the host's key map as a Target with a bare name; None for what is not part of the diffusion model."""
    key, piece, function = (*entry, None, None)[:3] if isinstance(entry, tuple) else (entry, None, None)
    if not key.startswith(NET):
        return None
    return Target(key.removeprefix(NET), tuple(piece) if piece else None, getattr(function, "__name__", None))


# --- loaded models


class ModelWeights(InMemory):
    """The weights of a MODEL as a TensorSource with bare names: originals plus the patches it already carries.

    Reads only through ``get_key_patches``: the module itself may hold another clone's patched weights.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.label = f"MODEL ({type(model.model).__name__})"
        self.identity = identity_of_model(model)
        self.facts = model_facts(model)
        self._keys = {key.removeprefix(NET): value for key, value in model.get_key_patches(NET).items()}
        self._markers = sampling_markers(model)
        weights = {**{name: entry[0][0] for name, entry in self._keys.items()}, **self._markers}
        self.tensors = {name: TensorInfo(name, weight.dtype, tuple(weight.shape)) for name, weight in weights.items()}

    def read(self, name: str) -> torch.Tensor:
        """The original weight; in fp32 with the MODEL's own patches added where it has some."""
        if name in self._markers:
            return self._markers[name]
        (weight, convert), *patches = self._keys[name]
        if not patches:
            return convert(weight, inplace=False).detach()  # type: ignore[no-any-return]
        fresh = convert(weight, inplace=False).detach().to(torch.float32, copy=True)
        return comfy.lora.calculate_weight(patches, fresh, NET + name)  # type: ignore[no-any-return]

    def edges(self, name: str) -> bytes:
        """The first and the last 4 KiB of a weight, for the fingerprint; a patched one is computed for it."""
        flat = self.read(name).reshape(-1)
        ends = (flat[: EDGE // flat.itemsize], flat[-EDGE // flat.itemsize :])
        return b"".join(end.cpu().contiguous().view(torch.uint8).numpy().tobytes() for end in ends if end.numel())

    def load_model(self) -> Any:
        """The MODEL itself."""
        return self.model

    @property
    def patched(self) -> int:
        """How many weights carry patches that another node added."""
        return sum(len(entry) > 1 for entry in self._keys.values())


def require_native(model: Any) -> None:
    """FoundryError for a MODEL of another pack's own kind (GGUF, Nunchaku ...): its weights are no plain tensors."""
    native = {"ModelPatcher", "ModelPatcherDynamic"}
    if type(model).__name__ not in native or not hasattr(model.model, "diffusion_model"):
        raise refuse("LF201.not_native", kind=type(model).__name__)


def injections(model: Any) -> Mapping[Any, Any]:
    """What is run beside the modules of a MODEL (from 0.28 on), by its key."""
    found: Mapping[Any, Any] = getattr(model, "injections", {})
    return found


def quantized_as(model: Any) -> str | None:
    """How a MODEL's weights are quantized, or None."""
    for name, tensor in model.model.diffusion_model.state_dict().items():
        if name.endswith(("scale_weight", "scaled_fp8", "comfy_quant")):
            return "scaled fp8"
        if hasattr(tensor, "_qdata") or hasattr(tensor, "_layout_type") or hasattr(tensor, "layout_type"):
            return f"{type(tensor).__name__}, {name}"
        if tensor.dtype in FP8_DTYPES:
            return f"{str(tensor.dtype).removeprefix('torch.')}, {name}"
    return None


def ledger(model: Any) -> dict[str, Any]:
    """What this pack wrote on a MODEL it made: layers by stage, format, recipe."""
    record = model.get_attachment(LEDGER) if hasattr(model, "get_attachment") else None
    return record if isinstance(record, dict) else {}


# --- formats


def loadable_formats() -> tuple[str, ...]:
    """Those of our formats that this ComfyUI loads and runs."""
    host = comfy.quant_ops
    layouts = {name: getattr(host, each["comfy_tensor_layout"], None) for name, each in host.QUANT_ALGOS.items()}
    return loadable(layouts)


def chosen_format(wanted: str) -> tuple[str, str]:
    """(format, why ``auto`` or ``smallest`` came to it); FoundryError ``format`` for one this ComfyUI cannot load."""
    kind = comfy.model_management.get_torch_device().type
    held = [name for name in loadable_formats() if is_held(name, kind)]
    format, why = choose(wanted, machine_of(compute_device(), held))
    refuse_format(format)
    return format, why


def refuse_pre_quant_scale() -> None:
    """FoundryError ``format`` where this ComfyUI would drop the scale of inputs and compute something else."""
    require_pre_quant_scale(comfy.quant_ops.QUANT_ALGOS)


def refuse_format(name: str) -> None:
    """FoundryError ``format`` for one of our formats that this ComfyUI could not load, or its device not hold."""
    require_loadable(name, loadable_formats())
    require_device(name, comfy.model_management.get_torch_device().type)


# --- making models


def load_file(path: Path, kind: str) -> Any:
    """The MODEL ComfyUI's own loader makes of a file."""
    if kind == "checkpoints":
        return comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False, output_clip=False)[0]
    return comfy.sd.load_diffusion_model(str(path))


def load_baked(path: Path, dtype: torch.dtype, **options: Any) -> Any:
    """A MODEL that maps a finished file. ``dtype`` keeps norms out of fp8 on 0.3.75."""
    return comfy.sd.load_diffusion_model(str(path), model_options={"dtype": dtype}, **options)


def load_clip_and_vae(path: Path) -> tuple[Any, Any]:
    """CLIP and VAE of an all-in-one checkpoint; its diffusion model is not loaded."""
    parts = comfy.sd.load_checkpoint_guess_config(
        str(path), output_vae=True, output_clip=True, embedding_directory=embedding_folders(), output_model=False
    )
    return parts[1], parts[2]


def build_model(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], dtype: torch.dtype, **options: Any
) -> Any:
    """A MODEL from a finished state dict with bare names. ``dtype`` keeps norms out of fp8 on 0.3.75."""
    model = comfy.sd.load_diffusion_model_state_dict(
        dict(tensors), model_options={"dtype": dtype}, metadata=dict(metadata), **options
    )
    if model is None:
        raise refuse("host.unknown_result")
    return model


def take_weights(source: Any, fresh: Any) -> Any:
    """A clone of ``source`` (wrappers, options, attachments, object patches) whose weights are those of ``fresh``."""
    if hasattr(source, "get_clone_model_override"):
        result = source.clone(model_override=fresh.get_clone_model_override())
    else:
        result = source.clone()
        result.model = fresh.model
        result.backup, result.object_patches_backup, result.pinned = {}, {}, set()
    result.patches, result.hook_backup = {}, {}
    result.patches_uuid = uuid.uuid4()
    result.size, result.parent = 0, None
    return result


def sign(model: Any, record: dict[str, Any], rebuild: Callable[..., Any], entry: Any = None) -> Any:
    """Write the ledger, and give the host a way to make these weights again (compile, hooks, several GPUs).

    ``entry`` is the cached file the MODEL maps: while the MODEL lives it is not evicted.
    """
    model.set_attachments(LEDGER, record)
    if entry is not None:
        model.set_attachments(CACHED, entry)
    if hasattr(model, "cached_patcher_init"):
        model.cached_patcher_init = (rebuild, ())
    if hasattr(model, "clone_base_uuid"):
        model.clone_base_uuid = uuid.uuid4()
    return model


# --- patches


def lora_patch(up: torch.Tensor, down: torch.Tensor) -> Any:
    """Factors (strength folded in) as the host's own adapter."""
    return comfy.weight_adapter.LoRAAdapter(set(), (up, down, None, None, None, None))


def add_patches(model: Any, patches: Mapping[Any, Any]) -> None:
    """Add patches keyed by bare name, or (bare name, slice), to a MODEL; every one must find its weight."""
    keyed = {NET + key if isinstance(key, str) else (NET + key[0], *key[1:]): value for key, value in patches.items()}
    taken = len(model.add_patches(keyed, 1.0))
    if taken != len(keyed):
        raise refuse("host.patches", taken=taken, patches=len(keyed))


def patch_clip(clip: Any, named: Callable[[KeyMap], dict[str, torch.Tensor]], strength: float) -> tuple[Any, int]:
    """(a clone of CLIP with LoRA parts ``named`` by its key map at this strength, how many weights they reached)."""
    key_map = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    loaded = comfy.lora.load_lora(named(key_map), key_map, log_missing=False)
    patched = clip.clone()
    return patched, len(patched.add_patches(loaded, strength))
