"""Problems of a data set on the Hugging Face hub, from its Parquet files.

    config.problems.name   = "hf:OWNER/NAME", "hf:OWNER/NAME/CONFIG", "hf:OWNER/NAME@REVISION"
    config.problems.fields = {"problem": "question", "answer": "reward_model.ground_truth"}

Needs the extra `hub`. What has been downloaded needs no network. Files in the data set's own
repository come first (data/train-00000-of-00002.parquet, CONFIG/train-…, train.parquet); else those
that the hub has made of it (the branch refs/convert/parquet: CONFIG/train/0000.parquet). Only the
files of the split are downloaded.
"""

import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from score_jax.data.sets import own_rows, parquet
from score_jax.problem import InputError, Problem

PREFIX = "hf:"
_CONVERTED = "refs/convert/parquet"
_NAME = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<config>[\w. -]+))?(?:@(?P<revision>[\w./-]+))?", re.ASCII
)
_SHARD = re.compile(r"-\d{5}-of-(\d{5})")


def problems(
    name: str, path: str, split: str, fields: Mapping[str, str], setting: str = "config.problems"
) -> list[Problem]:
    """Problems of one split. Raises: InputError if it cannot be had, or a row does not fit."""
    named = _NAME.fullmatch(name)
    if not named:
        raise InputError(
            f"{setting}.name={name!r} names no data set of the hub. Write hf:OWNER/NAME, "
            "hf:OWNER/NAME/CONFIG or hf:OWNER/NAME@REVISION."
        )
    if path:
        raise InputError(
            f"{setting}.path={path!r} has no meaning for {name!r}, which is read from the hub's "
            "cache. Leave it empty, or set the name to parquet or jsonl to read your own files."
        )
    files = _files(named["repo"], named["config"] or "", named["revision"] or "", split, setting)
    return own_rows.problems(_rows(files, name, split), fields, setting)


def _rows(
    files: list[pathlib.Path], name: str, split: str
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    number = 0
    for file in files:
        for _, row in parquet.rows(file):
            number += 1
            yield (
                f"{name}, split {split!r}, row {number}",
                f"{name.removeprefix(PREFIX)}/{split}/{number}",
                row,
            )


def _files(repo: str, config: str, revision: str, split: str, setting: str) -> list[pathlib.Path]:
    """The split's files, in order: from the cache, or else downloaded."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InputError(
            f"{setting}.name=hf:{repo} needs huggingface_hub, which is not installed. Run: "
            "pip install 'score-jax[hub]', or set the name to parquet and read your own copy."
        ) from None
    reason, cached = "", list[pathlib.Path]()
    for local in (True, False):
        for where in [revision] if revision else ["", _CONVERTED]:
            try:
                folder = pathlib.Path(
                    snapshot_download(
                        repo,
                        repo_type="dataset",
                        revision=where or None,
                        local_files_only=local,
                        allow_patterns=_patterns(config, split),
                    )
                )
            except Exception as error:  # of the client, the network or the system
                reason = str(error).strip().split("\n")[0] or type(error).__name__
                continue
            names = [str(p.relative_to(folder)) for p in folder.rglob("*.parquet")]
            chosen = {name: own for name in names if (own := config_of(name, split)) is not None}
            chosen = {name: own for name, own in chosen.items() if not config or own == config}
            if len(configs := sorted(set(chosen.values()))) > 1:
                raise InputError(
                    f"hf:{repo} has the split {split!r} in {', '.join(configs)}. Set "
                    f"{setting}.name to one of them, such as hf:{repo}/{configs[0]}."
                )
            files = [folder / name for name in sorted(chosen)]
            # Names such as train-00000-of-00002 say whether all are there; others do not, so that
            # the network is asked first.
            totals = {int(match[1]) for name in chosen if (match := _SHARD.search(name))}
            if files and (totals == {len(files)} or not (totals or local)):
                return files
            cached = cached or ([] if totals else files)
    if cached:
        return cached
    raise InputError(
        f"hf:{repo}{'/' + config if config else ''} has no Parquet files of a split {split!r} in "
        f"the hub's cache, and none could be downloaded ({reason or 'it has none'}). Check the "
        f"name, {setting}.split and the network. If the data set has no such split, set "
        "config.problems.test to another set, or read your own files (jsonl, parquet)."
    )


def _patterns(config: str, split: str) -> list[str]:
    """What to download, as file patterns (* spans folders too)."""
    start = f"{config}/" if config else ""
    names = [f"{split}-*.parquet", f"{split}.parquet", f"{split}/*.parquet"]
    return [pattern for name in names for pattern in (start + name, f"{start}*/{name}")]


def config_of(name: str, split: str) -> str | None:
    """The configuration that a file of the split belongs to; None for files of other splits."""
    *folders, file = name.split("/")
    stem = _SHARD.sub("", file.removesuffix(".parquet"))
    if folders and folders[-1] == split:  # CONFIG/train/0000.parquet
        folders = folders[:-1]
    elif stem != split:
        return None
    return "/".join(folder for folder in folders if folder != "data") or "default"
