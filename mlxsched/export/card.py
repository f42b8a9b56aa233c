"""A folder for the Hugging Face Hub: the adapter, a model card, the schedule's picture and the configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mlxsched.config.schema import RunConfig
from mlxsched.errors import UsageError
from mlxsched.export.adapter import TrainedAdapter
from mlxsched.export.folder import write_folder
from mlxsched.model.adapters import CONFIG, WEIGHTS
from mlxsched.runs.info import measures
from mlxsched.runs.json_file import read_object

PICTURE, SETTINGS = "schedule.png", "mlxsched.yaml"
# Of this machine or account, and nobody else's business.
_PRIVATE = (
    "run_dir",
    "name",
    "adapter_path",
    "project_name",
    "report_to",
    "resume_adapter_file",
    "model",
    "data",
)
_MEASURES = (("loss", "{:.4f}"), ("perplexity", "{:.4g}"), ("exact_match", "{:.1%}"))


def write_repository(
    adapter: TrainedAdapter,
    folder: Path,
    *,
    repo: str,
    base_model: str | None,
    licence: str | None,
    force: bool = False,
) -> list[str]:
    """Write into ``folder`` what `push` uploads to ``repo``, and return the names of the files."""
    base = base_model or adapter.base_model
    if base is None:
        raise UsageError(
            f"the run's model, {adapter.config.model}, has no known name on the Hub. "
            "Name it with --base-model OWNER/NAME."
        )

    def fill(directory: Path) -> None:
        (directory / WEIGHTS).write_bytes((adapter.path / WEIGHTS).read_bytes())
        settings = {**read_object(adapter.path / CONFIG), "model": base}  # not the path on this machine
        (directory / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        (directory / SETTINGS).write_text(public_settings(adapter, base), encoding="utf-8")
        picture = _draw_schedule(adapter, directory / PICTURE)
        card(adapter, repo, base, licence or base_licence(adapter.model_path), picture).save(
            directory / "README.md"
        )

    return write_folder(folder, fill, force=force)


def card(adapter: TrainedAdapter, repo: str, base: str, licence: str | None, picture: bool) -> Any:
    """The model card, as `huggingface_hub.ModelCard`."""
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        base_model=base,
        library_name="mlx",
        license=licence,
        pipeline_tag="text-generation",
        tags=["lora", "mlx", "mlxsched"],
        base_model_relation="adapter",
        **_results(adapter, repo),
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_body(adapter, repo, base, picture)}")


def _results(adapter: TrainedAdapter, repo: str) -> dict[str, Any]:
    """What was measured after the training, in the form that the Hub shows beside a model."""
    from huggingface_hub import EvalResult

    after = measures(adapter.run.info.results, "after")
    dataset = Path(adapter.config.data).name
    found = [
        EvalResult("text-generation", dataset, dataset, key, round(float(after[key]), 6))
        for key, _ in _MEASURES
        if key in after
    ]
    return {"model_name": repo.rpartition("/")[2], "eval_results": found} if found else {}


def _body(adapter: TrainedAdapter, repo: str, base: str, picture: bool) -> str:
    config, plan = adapter.config, adapter.run.info.plan
    return "\n".join(
        [
            f"# {repo.rpartition('/')[2]}",
            "",
            f"A {config.fine_tune_type} adapter of [{base}](https://huggingface.co/{base}) for MLX, trained with mlxsched: "
            f"{adapter.run.info.update or plan.get('updates', 0)} updates of {plan.get('batch_size', '?')} rows.",
            "",
            "## Use",
            "",
            "```python",
            "from huggingface_hub import snapshot_download",
            "from mlx_lm import generate, load",
            "",
            f'model, tokenizer = load("{base}", adapter_path=snapshot_download("{repo}"))',
            'messages = [{"role": "user", "content": "Your request"}]',
            "prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)",
            "print(generate(model, tokenizer, prompt))",
            "```",
            "",
            *_metrics(adapter),
            "## Training",
            "",
            *([f"![Learning rate by update]({PICTURE})", ""] if picture else []),
            f"The configuration, `{SETTINGS}`:",
            "",
            "```yaml",
            public_settings(adapter, base).rstrip(),
            "```",
            "",
        ]
    )


def _metrics(adapter: TrainedAdapter) -> list[str]:
    results = adapter.run.info.results
    before, after = measures(results, "before"), measures(results, "after")
    rows = [
        f"| {key.replace('_', ' ')} | {form.format(before[key]) if key in before else '-'} | {form.format(after[key])} |"
        for key, form in _MEASURES
        if key in after
    ]
    return ["## Results", "", "| | before | after |", "| --- | --- | --- |", *rows, ""] if rows else []


def public_settings(adapter: TrainedAdapter, base: str) -> str:
    """The run's config as YAML: what differs from the defaults, without paths of this machine."""
    values, usual = adapter.config.to_dict(), RunConfig().to_dict()
    shown = {
        key: value for key, value in values.items() if value not in (None, usual[key]) and key not in _PRIVATE
    }
    data = Path(adapter.config.data).name
    return yaml.safe_dump({"model": base, "data": data, **shown}, sort_keys=False, allow_unicode=True)


def base_licence(model: Path) -> str | None:
    """The licence in the front matter of the model's README, if it has one."""
    from huggingface_hub import ModelCard

    try:
        licence: Any = ModelCard.load(model / "README.md").data.license
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return licence if isinstance(licence, str) else None


def _draw_schedule(adapter: TrainedAdapter, file: Path) -> bool:
    """Draw the planned schedule; false where matplotlib or the schedule is missing."""
    from mlxsched.render.curves import schedule_chart
    from mlxsched.render.image import save
    from mlxsched.schedules import from_dict

    plan: Mapping[str, Any] = adapter.run.info.plan
    try:
        schedule = from_dict(plan["schedule"])
        save(schedule_chart([(str(schedule), schedule)], steps=int(plan["updates"])), file)
    except (UsageError, KeyError, TypeError, ValueError):
        return False
    return True
