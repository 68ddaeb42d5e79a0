"""The lineage files, read by the tools they are for (mlcroissant, prov, YAML); every hash is checked against the bytes."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlcroissant
import prov.model
import pyarrow as pa
import pytest
import yaml
from squares import SplitSource

from generator.card.card import dataset_card
from generator.card.croissant import CROISSANT, RAI, LabelFile, croissant
from generator.card.facts import gather
from generator.card.files import lineage_files
from generator.card.origin import Origin, Part
from generator.card.provenance import provenance
from generator.export import DatasetSource
from generator.export.run import export
from generator.recipe.licence import HUB_LICENCES, check_licence
from generator.store.labels import LabelRows, StoredLabels, write_labels
from generator.versions.working.working_folder import WorkingFolder
from scenes.errors import InputError

VERSION, PARENT = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def committed(source: DatasetSource) -> Origin:
    return replace(source.origin, version=VERSION, parents=(PARENT,), created="2026-01-02T03:04:05Z", message="first")


@pytest.fixture
def folder(dataset: WorkingFolder, source: DatasetSource, committed: Origin, tmp_path: Path) -> Path:
    """A dataset folder as a person has it: clips, labels and the three files about itself."""
    (tmp_path / "clips").symlink_to(dataset.path / "clips")
    labels = write_labels(tmp_path / "labels.parquet", source.labels.schema, [source.labels])
    for name, data in lineage_files(committed, labels, license="CC-BY-4.0").items():
        (tmp_path / name).write_bytes(b"".join(data))
    return tmp_path


def card_of(origin: Origin, table: pa.Table, **options: Any) -> str:
    return dataset_card(origin, gather(origin.axes, LabelRows.of(table)), **options)


def pieces(rows: LabelRows, step: int) -> LabelRows:
    """Return the same rows in tables of `step`."""
    (table,) = rows.tables()
    return replace(rows, tables=lambda: (table.slice(start, step) for start in range(0, rows.rows, step)))


def test_croissant_is_valid_by_mlcroissant_and_gives_the_labels_back(
    folder: Path, source: DatasetSource, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        loaded = mlcroissant.Dataset(str(folder / "croissant.json"))
    assert not loaded.metadata.ctx.issues.errors and not loaded.metadata.ctx.issues.warnings
    assert [record for record in caplog.records if "croissant" in record.getMessage().lower()] == []
    expected = source.labels.to_pylist()
    for record, row in zip(loaded.records("labels"), expected, strict=True):
        assert record["labels/clip_id"].decode() == row["clip_id"]
        assert record["labels/frames"] == row["frames"]
        if row["shutter_exposure_s"] is not None:
            assert record["labels/shutter_exposure_s"] == row["shutter_exposure_s"]


def test_croissant_states_version_rai_terms_and_the_true_hash_of_every_file(folder: Path, source: DatasetSource) -> None:
    tree = json.loads((folder / "croissant.json").read_text(encoding="utf-8"))
    assert tree["conformsTo"] == [CROISSANT, RAI] and tree["license"] == "https://spdx.org/licenses/CC-BY-4.0"
    assert VERSION in tree["version"] and tree["datePublished"] == "2026-01-02"
    files = [entry for entry in tree["distribution"] if entry["@type"] == "cr:FileObject"]
    assert len(files) == source.labels.num_rows + 1
    for entry in files:
        data = (folder / entry["contentUrl"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest() and entry["contentSize"] == f"{len(data)} B"
    metadata = mlcroissant.Dataset(str(folder / "croissant.json")).metadata
    for said in ("data_collection", "data_limitations", "data_biases", "data_use_cases", "personal_sensitive_information"):
        assert getattr(metadata, said), said


def test_a_damaged_label_file_is_refused_by_mlcroissant(folder: Path) -> None:
    data = bytearray((folder / "labels.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "labels.parquet").write_bytes(data)
    with pytest.raises(Exception, match=r"(?i)hash|generat"):
        list(mlcroissant.Dataset(str(folder / "croissant.json")).records("labels"))


def test_the_videofolder_exports_croissant_is_valid_for_several_splits(split_source: SplitSource, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(split_source, "videofolder", out)
    loaded = mlcroissant.Dataset(str(out / "croissant.json"))
    first = loaded.metadata.record_sets[0]
    assert first.uuid == "labels" and len(list(loaded.records("labels"))) > 0
    for entry in json.loads((out / "croissant.json").read_text())["distribution"]:
        if "sha256" in entry:
            assert entry["sha256"] == hashlib.sha256((out / entry["contentUrl"]).read_bytes()).hexdigest()


def test_beyond_the_limit_clips_are_one_file_set(source: DatasetSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generator.card.croissant.MAX_FILE_OBJECTS", 10)
    labels = LabelFile(path="labels.parquet", sha256="0" * 64, size_bytes=1)
    rows = LabelRows.of(source.labels)
    facts = gather(source.origin.axes, rows)
    tree = json.loads(b"".join(croissant(source.origin, facts, rows, license=None, labels=[labels])))
    assert [entry["@id"] for entry in tree["distribution"]] == ["labels.parquet", "clips"]
    assert "license" not in tree and "datePublished" not in tree


def test_provenance_is_prov_and_leads_from_every_clip_to_the_recipe(
    committed: Origin, source: DatasetSource, folder: Path
) -> None:
    document = prov.model.ProvDocument.deserialize(str(folder / "provenance.json"), format="json")
    derived = {}
    for relation in document.get_records(prov.model.ProvDerivation):
        after, before = (str(value) for _, value in relation.formal_attributes[:2])
        derived.setdefault(after, []).append(before)
    (part,) = committed.parts
    for row in source.labels.to_pylist():
        (scene,) = derived[f"sd:clip/{row['clip_id']}"]
        assert scene == f"sd:scene/{row['scene_id']}"
        assert derived[scene] == [f"sd:plan/{part.plan_digest}"]
    assert derived[f"sd:plan/{part.plan_digest}"] == [f"sd:recipe/{part.recipe_digest}"]
    assert derived[f"sd:version/{VERSION}"] == [f"sd:version/{PARENT}"]
    generated = list(document.get_records(prov.model.ProvGeneration))
    assert len(generated) == source.labels.num_rows + 1  # every clip, and the plan
    entities = {str(entity.identifier): entity for entity in document.get_records(prov.model.ProvEntity)}
    for row in source.labels.to_pylist():
        facts = {str(name): value for name, value in entities[f"sd:clip/{row['clip_id']}"].attributes}
        assert facts["sd:sha256_bytes"] == row["sha256_bytes"] and facts["sd:sha256_frames"] == row["sha256_frames"]


def test_a_merged_dataset_has_every_plan_and_ties_scenes_by_seed(source: DatasetSource) -> None:
    (part,) = source.origin.parts
    other = Part(recipe={**part.recipe, "seed": 99}, plan_digest="c" * 64)
    tree = json.loads(b"".join(provenance(replace(source.origin, parts=(part, other)), LabelRows.of(source.labels))))
    assert {f"sd:plan/{part.plan_digest}", f"sd:plan/{'c' * 64}"} <= set(tree["entity"])
    uses = {
        tie["prov:usedEntity"] for tie in tree["wasDerivedFrom"].values() if tie["prov:generatedEntity"].startswith("sd:scene/")
    }
    assert uses == {f"sd:plan/{part.plan_digest}"}


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_the_same_dataset_gives_the_same_bytes_however_its_rows_come(
    source: DatasetSource, committed: Origin, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generator.card.provenance._HELD_BYTES", 100)  # what is more lies on the disk
    whole = LabelRows.of(source.labels.sort_by("clip_id"))
    files = []
    for number, rows in enumerate((whole, pieces(whole, step))):
        labels: StoredLabels = write_labels(tmp_path / f"{number}.parquet", rows.schema, rows.tables())
        named = replace(labels, tables=rows.tables)
        files.append({name: b"".join(data) for name, data in lineage_files(committed, named).items()})
        files[-1]["labels"] = labels.file.read_bytes()
        assert pa.concat_tables(labels.tables()).equals(source.labels.sort_by("clip_id"))
    assert files[0] == files[1]
    assert json.loads(files[0]["croissant.json"]) and json.loads(files[0]["provenance.json"])


def front_matter(card: str) -> dict[str, object]:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_has_the_hubs_keys_and_the_numbers_of_the_labels(source: DatasetSource, split_source: SplitSource) -> None:
    card = card_of(source.origin, split_source.labels, license="CC-BY-4.0")
    front = front_matter(card)
    assert front["license"] == "cc-by-4.0" and front["annotations_creators"] == ["machine-generated"]
    assert front["size_categories"] == ["n<1K"] and front["configs"][0]["data_files"]
    assert f"{source.labels.num_rows} clips of" in card
    for split in ("train", "validation", "test"):
        clips = sum(row["split"] == split for row in split_source.labels.to_pylist())
        assert any(line.startswith(f"| {split} |") and line.endswith(f"| {clips} |") for line in card.splitlines())
    for column in split_source.labels.column_names:
        assert f"| `{column}` |" in card
    assert "The aperture probe could not read 6 of 6 clips." in card


def test_the_card_without_a_licence_says_so(source: DatasetSource) -> None:
    card = card_of(source.origin, source.labels)
    assert front_matter(card)["license"] == "unknown"
    assert "No licence was chosen by the owner of this dataset; ask before using it." in card


def test_a_licence_of_ones_own_is_other_with_its_name(source: DatasetSource) -> None:
    front = front_matter(card_of(source.origin, source.labels, license=check_licence("LicenseRef-Studio-1")))
    assert front["license"] == "other" and front["license_name"] == "studio-1"


@pytest.mark.parametrize("written", ["cc-by-4.0", "CC-BY-4.0", "Cc-By-4.0"])
def test_a_licence_is_known_in_any_case(written: str) -> None:
    assert check_licence(written) == "CC-BY-4.0"
    assert set(HUB_LICENCES) == {check_licence(name) for name in HUB_LICENCES}


@pytest.mark.parametrize("written", ["", "free", "CC-BY", "LicenseRef-", "LicenseRef-a b", "MIT\nlicense: x"])
def test_an_unknown_licence_is_refused_in_one_line(written: str) -> None:
    with pytest.raises(InputError, match="not known"):
        check_licence(written)


def test_labels_that_nobody_measured_are_not_called_measured(source: DatasetSource) -> None:
    nulls = pa.nulls(source.labels.num_rows, pa.float64())
    position = source.labels.column_names.index("shutter_error")
    unmeasured = source.labels.set_column(position, source.labels.schema.field(position), nulls)
    assert "| 0 of 16 | not judged | not judged |" in card_of(source.origin, unmeasured)
