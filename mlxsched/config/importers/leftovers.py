"""Why a key has no counterpart, and which values of other tools say nothing."""

from __future__ import annotations

from typing import Any

from mlxsched.config.importers.draft import Draft, is_off

_ONE_DEVICE = "this is a run on one machine"
_DTYPE = "MLX trains in the dtype of the model's weights"
_KERNELS = "MLX has its own kernels"
_DATA = "rows are tokenized once and kept in memory"

# The beginning of a key -> why it is not converted. Longer beginnings first where one begins another.
REASONS = {
    "trust_remote_code": "a file cannot give this permission; pass --trust-remote-code",
    "output_dir": "runs are written to runs/NAME; choose another place with --run-dir",
    "logging_dir": "metrics.jsonl is in the run directory",
    "bf16": _DTYPE,
    "fp16": _DTYPE,
    "tf32": _DTYPE,
    "half_precision": _DTYPE,
    "ddp": _ONE_DEVICE,
    "fsdp": _ONE_DEVICE,
    "deepspeed": _ONE_DEVICE,
    "local_rank": _ONE_DEVICE,
    "parallelism": _ONE_DEVICE,
    "accelerator": _ONE_DEVICE,
    "tensor_parallel": _ONE_DEVICE,
    "n_gpu": _ONE_DEVICE,
    "_n_gpu": _ONE_DEVICE,
    "dataloader": _DATA,
    "preprocessing": _DATA,
    "dataset_num_proc": _DATA,
    "dataset_prepared": _DATA,
    "remove_unused": _DATA,
    "flash": _KERNELS,
    "xformers": _KERNELS,
    "sdp_attention": _KERNELS,
    "attn_implementation": _KERNELS,
    "torch_compile": _KERNELS,
    "use_liger": _KERNELS,
    "liger": _KERNELS,
    "enable_liger": _KERNELS,
    "plugins": _KERNELS,
    "lora_mlp_kernel": _KERNELS,
    "lora_qkv_kernel": _KERNELS,
    "lora_o_kernel": _KERNELS,
    "gradient_checkpointing_kwargs": "whole layers are recomputed",
    "activation_checkpointing": "use grad_checkpoint",
    "per_device_eval_batch_size": "evaluation batches are sized by tokens",
    "eval_batch_size": "evaluation batches are sized by tokens",
    "eval_accumulation": "evaluation batches are sized by tokens",
    "evals_per_epoch": "write updates as steps_per_eval; by default a run is evaluated ten times",
    "saves_per_epoch": "write updates as save_every; 100 by default",
    "load_best_model": "the best adapter by validation loss is always kept",
    "metric_for_best": "the best adapter is the one with the lowest validation loss",
    "greater_is_better": "the best adapter is the one with the lowest validation loss",
    "hub_": "nothing is uploaded during a run",
    "push_to_hub": "nothing is uploaded during a run",
    "resume_from_checkpoint": "checkpoints of other trainers cannot be resumed",
    "lora_model_dir": "give an adapter to start from with --resume-adapter-file",
    "adapter_name_or_path": "give an adapter to start from with --resume-adapter-file",
    "load_in_4bit": "use a quantized model: mlx_lm.convert -q",
    "load_in_8bit": "use a quantized model: mlx_lm.convert -q",
    "quantization": "use a quantized model: mlx_lm.convert -q",
    "neftune": "noise on the embeddings is not supported",
    "data_seed": "one seed decides order and initialization",
    "chat_template": "the chat template of the tokenizer is used",
    "template": "the chat template of the tokenizer is used",
    "special_tokens": "the tokens of the tokenizer are used",
    "tokens": "the tokens of the tokenizer are used",
    "val_set_size": "without a valid.jsonl, a single data file is split by content",
    "val_size": "without a valid.jsonl, a single data file is split by content",
    "eval_dataset": "put validation rows into valid.jsonl next to train.jsonl",
    "test_datasets": "put validation rows into valid.jsonl next to train.jsonl",
    "max_samples": "shorten the data file itself",
    "plot_loss": "mlxsched plot RUN draws it",
    "overwrite_output_dir": "a run never overwrites another one",
    "pad_to_sequence_len": "rows are padded to the lengths that occur",
    "eval_sample_packing": "evaluation batches are sized by tokens",
    "rl": "only supervised fine-tuning is supported",
}

# Defaults that are not off, in transformers 4 and 5, TRL and PEFT: they say nothing about a run.
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "average_tokens_across_devices": (True,),
    "logging_strategy": ("steps",),
    "log_on_each_node": (True,),
    "logging_nan_inf_filter": (True,),
    "log_level": ("passive",),
    "log_level_replica": ("warning",),
    "disable_tqdm": (True, False),
    "eval_do_concat_batches": (True,),
    "per_device_eval_batch_size": (8,),
    "hub_strategy": ("every_save",),
    "hub_token": ("<HUB_TOKEN>",),
    "dataloader_pin_memory": (True,),
    "dataloader_in_order": (True,),
    "remove_unused_columns": (True,),
    "length_column_name": ("length",),
    "ddp_timeout": (1800, 180000000),
    "skip_memory_metrics": (True,),
    "ray_scope": ("last",),
    "save_safetensors": (True,),
    "save_strategy": ("steps",),
    "do_train": (True,),
    "do_eval": (True,),
    "_n_gpu": (1,),
    "half_precision_backend": ("auto",),
    "fp16_opt_level": ("O1",),
    "fp16_backend": ("auto",),
    "use_legacy_prediction_loop": (False,),
    "fsdp_config": ({"min_num_params": 0, "xla": False, "xla_fsdp_v2": False, "xla_fsdp_grad_ckpt": False},),
    "truncation_mode": ("keep_start",),
    "packing_strategy": ("bfd",),
    "pad_to_multiple_of": ("auto",),
    "loss_type": ("nll",),
    "plot_loss": (True,),
    "strict": (True,),
}


def sort_remaining(draft: Draft) -> None:
    """Sort the keys that no rule has taken: off or at a default, or without a counterpart."""
    for key, value in list(draft.remaining()):
        if is_off(value) or value in DEFAULTS.get(key, ()):
            draft.at_default.append(key)
        else:
            draft.leave_key(key, _reason(key))


def _reason(key: str) -> str:
    fitting = [start for start in REASONS if key.startswith(start)]
    return REASONS[max(fitting, key=len)] if fitting else "no counterpart"
