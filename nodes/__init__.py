"""What appears in the graph, one file per stage. ``sockets`` holds the order law; ``host``, ``folders`` and ``server``
alone ask anything of ComfyUI."""

from __future__ import annotations

from ..loaders.disk.home import set_home
from . import folders, routes
from .apply import FoundryApply
from .calibrate import FoundryCalibrate
from .declare import FoundryDeclareLineage
from .extract import FoundryExtractLoRA
from .fuse import FoundryFuseBaseLoRA
from .load import FoundryLoadBase, FoundryLoadCheckpoint
from .merge import FoundryLoRAConflicts, FoundryMergeLoRAs
from .quantize import FoundryQuantizeFP8
from .rows import FoundryLoRA, FoundryLoRAStack
from .save import FoundrySaveModel
from .stack import FoundryStackLoRAs
from .train import FoundrySaveTrainedLoRA
from .validate import FoundryStackValidator

set_home(folders.user_folder())
routes.register()

NODE_CLASS_MAPPINGS = {
    "FoundryLoadBase": FoundryLoadBase,
    "FoundryLoadCheckpoint": FoundryLoadCheckpoint,
    "FoundryFuseBaseLoRA": FoundryFuseBaseLoRA,
    "FoundryLoRA": FoundryLoRA,
    "FoundryLoRAStack": FoundryLoRAStack,
    "FoundryStackLoRAs": FoundryStackLoRAs,
    "FoundryStackValidator": FoundryStackValidator,
    "FoundryDeclareLineage": FoundryDeclareLineage,
    "FoundryQuantizeFP8": FoundryQuantizeFP8,
    "FoundryApply": FoundryApply,
    "FoundrySaveModel": FoundrySaveModel,
    "FoundrySaveTrainedLoRA": FoundrySaveTrainedLoRA,
    "FoundryMergeLoRAs": FoundryMergeLoRAs,
    "FoundryLoRAConflicts": FoundryLoRAConflicts,
    "FoundryCalibrate": FoundryCalibrate,
    "FoundryExtractLoRA": FoundryExtractLoRA,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "FoundryLoadBase": "Load Base Model",
    "FoundryLoadCheckpoint": "Load Base Checkpoint",
    "FoundryFuseBaseLoRA": "1 Fuse Base LoRA",
    "FoundryLoRA": "LoRA",
    "FoundryLoRAStack": "LoRA Stack",
    "FoundryStackLoRAs": "2 Stack LoRAs",
    "FoundryStackValidator": "Stack Validator",
    "FoundryDeclareLineage": "Declare Lineage",
    "FoundryQuantizeFP8": "3 Quantize",
    "FoundryApply": "3 Apply, no quantization",
    "FoundrySaveModel": "Save Baked Model",
    "FoundrySaveTrainedLoRA": "Save Trained LoRA",
    "FoundryMergeLoRAs": "Merge LoRAs",
    "FoundryLoRAConflicts": "LoRA Conflicts",
    "FoundryCalibrate": "Calibrate",
    "FoundryExtractLoRA": "Extract LoRA",
}
