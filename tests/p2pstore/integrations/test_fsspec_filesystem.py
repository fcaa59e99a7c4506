"""``mooncake://`` through fsspec: what it lists and reads, from real agents, and how many bytes that moves."""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

fsspec = pytest.importorskip("fsspec", reason="NOT THROUGH FSSPEC: it is not installed")

from p2pstore.errors import AgentNotRunning, NoLivePeer, UsageError  # noqa: E402
from p2pstore.integrations.fsspec_filesystem import MooncakeFileSystem  # noqa: E402
from tests.e2e.cluster import Agent, Cluster  # noqa: E402
from tests.p2pstore.samples import MIB, content, write_tree  # noqa: E402

FILES = {"a.bin": content(5 * MIB + 17, 1), "sub/b c.bin": content(2 * MIB, 2), "sub/deep/d": b"d", "empty": b""}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("fsspec") / "cluster")
    try:
        made.etcd()
        yield made
    finally:
        made.close()
    assert made.defects() == []


@pytest.fixture(scope="module")
def source(cluster: Cluster) -> Agent:
    agent = cluster.agent("source")
    write_tree(cluster.path("tree"), FILES, ("none",))
    agent.ok("register", cluster.path("tree"), "--name", "data/tree", "--chunk-size", "1MiB")
    agent.ok("register", cluster.path("tree") / "a.bin", "--name", "data/a.bin", "--chunk-size", "1MiB")
    return agent


@pytest.fixture(scope="module")
def reader(cluster: Cluster, source: Agent) -> Agent:
    return cluster.agent("reader", MOONCAKE_TRANSPORT="tcp")  # bytes that are counted


@pytest.fixture
def fs(reader: Agent) -> Any:
    fsspec.register_implementation("mooncake", MooncakeFileSystem, clobber=True)
    return fsspec.filesystem("mooncake", home=str(reader.home), skip_instance_cache=True)


@pytest.fixture
def moved(source: Agent) -> Callable[[], int]:
    """Bytes that the source has sent since the call before."""
    before = source.status()["bytes_sent"]

    def since() -> int:
        nonlocal before
        now = source.status()["bytes_sent"]
        count, before = now - before, now
        return int(count)

    return since


def registered(cluster: Cluster, source: Agent, name: str, path: Path, chunk_size: str = "1MiB") -> str:
    source.ok("register", path, "--name", name, "--chunk-size", chunk_size)
    return f"mooncake://{name}"


def test_the_entry_point_names_it() -> None:
    from tests.test_readme import tomllib

    text = (Path(__file__).resolve().parents[3] / "pyproject.toml").read_text()
    target = tomllib.loads(text)["project"]["entry-points"]["fsspec.specs"]["mooncake"]
    assert target == f"{MooncakeFileSystem.__module__}:{MooncakeFileSystem.__name__}"


def test_lists(fs: Any) -> None:
    assert fs.ls("", detail=False) == ["data"]
    assert fs.ls("mooncake://data", detail=False) == ["data/a.bin", "data/tree"]
    assert {each["name"]: each["type"] for each in fs.ls("data/tree")} == {
        "data/tree/a.bin": "file",
        "data/tree/empty": "file",
        "data/tree/none": "directory",
        "data/tree/sub": "directory",
    }
    assert fs.ls("data/tree/a.bin", detail=False) == ["data/tree/a.bin"]
    assert fs.find("data/tree") == [
        "data/tree/a.bin",
        "data/tree/empty",
        "data/tree/sub/b c.bin",
        "data/tree/sub/deep/d",
    ]
    assert fs.find("data") == ["data/a.bin", *fs.find("data/tree")]
    assert fs.glob("data/tree/**/*.bin") == ["data/tree/a.bin", "data/tree/sub/b c.bin"]
    assert fs.glob("data/*.bin") == ["data/a.bin"]
    assert fs.du("data/tree") == sum(map(len, FILES.values()))
    assert [len(files) for _, _, files in fs.walk("data/tree")] == [2, 0, 1, 1]


def test_what_is_at_a_path(fs: Any) -> None:
    assert fs.info("data/tree/sub/b c.bin")["size"] == 2 * MIB
    assert (fs.isfile("data/a.bin"), fs.isdir("data/a.bin")) == (True, False)
    assert (fs.isdir("data"), fs.isdir("data/tree"), fs.isdir("data/tree/sub")) == (True, True, True)
    assert not fs.exists("data/tree/none such")
    for path in ("nothing", "data/tree/a.bin/x", "data/tree/../a", "data/none"):
        with pytest.raises(FileNotFoundError):
            fs.info(path)
    with pytest.raises(IsADirectoryError):
        fs.cat_file("data/tree/sub")
    assert fs.created("data/a.bin") == fs.modified("data/a.bin")
    assert fs.ukey("data/a.bin").endswith(":data/a.bin")


def test_ranges_are_exact(fs: Any) -> None:
    data = FILES["a.bin"]
    ranges = [(0, 1), (MIB - 1, MIB + 1), (-20, None), (None, None), (5 * MIB, 9 * MIB), (7, 7), (3, -5)]
    for start, end in ranges:
        assert fs.cat_file("data/tree/a.bin", start, end) == data[start:end]
    paths = ["data/tree/a.bin"] * len(ranges) + ["data/tree/sub/b c.bin", "data/a.bin", "data/tree/empty"]
    starts, ends = [*(s for s, _ in ranges), 9, 1, 0], [*(e for _, e in ranges), 99, 4, 10]
    expected = [*(data[s:e] for s, e in ranges), FILES["sub/b c.bin"][9:99], data[1:4], b""]
    assert fs.cat_ranges(paths, starts, ends) == expected
    found = fs.cat_ranges(["data/tree/none", "data/a.bin"], 0, 3)
    assert isinstance(found[0], OSError)
    assert found[1] == data[:3]
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(["data/none such"], 0, 3, on_error="raise")
    assert fs.cat(["data/tree/a.bin", "data/tree/empty"]) == {"data/tree/a.bin": data, "data/tree/empty": b""}


def test_an_open_file_reads_as_any(fs: Any) -> None:
    chance, data = random.Random(3), FILES["a.bin"]
    with fs.open("data/tree/a.bin") as file, io.BytesIO(data) as judge:
        for _ in range(200):
            at, count = chance.randrange(len(data)), chance.choice([1, 4, 100, 70_000, 2 * MIB])
            file.seek(at)
            judge.seek(at)
            assert file.read(count) == judge.read(count)
        file.seek(0)
        assert file.read() == data
    with fs.open("data/tree/empty") as file:
        assert file.read() == b""
    with fs.open("data/tree/a.bin", cache_type="readahead") as file:
        assert file.read(10) == data[:10]


def test_nothing_is_written(fs: Any) -> None:
    for mode in ("wb", "ab", "r+b"):
        with pytest.raises(OSError, match="objects are read, not written"):
            fs.open("data/tree/new", mode)


def test_a_copy(fs: Any, tmp_path: Path) -> None:
    fs.get("data/tree", str(tmp_path / "copy"), recursive=True)
    for path, data in FILES.items():
        assert (tmp_path / "copy" / path).read_bytes() == data
    assert not list(tmp_path.rglob("*.mooncake-part"))


def test_it_travels_to_other_processes(fs: Any) -> None:
    assert pickle.loads(pickle.dumps(fs)).cat_file("data/a.bin", 0, 4) == FILES["a.bin"][:4]


def test_just_the_chunks_that_are_read_come_and_once(
    cluster: Cluster, source: Agent, fs: Any, moved: Callable[[], int]
) -> None:
    path = cluster.path("counted")
    path.write_bytes(content(32 * MIB, 5))
    url = registered(cluster, source, "counted", path)
    assert moved() == 0
    assert fs.cat_file(url, 3 * MIB + 5, 3 * MIB + 9) == path.read_bytes()[3 * MIB + 5 : 3 * MIB + 9]
    assert MIB <= moved() <= 3 * MIB, "one of 32 chunks; a busy machine may ask for it again"
    found = fs.cat_ranges([url] * 3, [3 * MIB, 10 * MIB, 20 * MIB - 1], [4 * MIB, 10 * MIB + 1, 20 * MIB + 1])
    assert [len(each) for each in found] == [MIB, 1, 2]
    assert 3 * MIB <= moved() <= 6 * MIB
    other = fsspec.filesystem("mooncake", home=str(fs._client.home.root), skip_instance_cache=True)
    with other.open(url) as file:
        file.seek(10 * MIB)
        assert file.read(MIB) == path.read_bytes()[10 * MIB : 11 * MIB]
    assert moved() == 0, "what one program has read is here for the next"


def test_an_open_file_stays_at_its_version(cluster: Cluster, source: Agent, fs: Any) -> None:
    one, two = cluster.path("v1"), cluster.path("v2")
    one.write_bytes(content(3 * MIB, 7))
    two.write_bytes(content(3 * MIB, 8))
    url = registered(cluster, source, "versions", one)
    with fs.open(url) as file:
        assert file.read(5) == one.read_bytes()[:5]
        digest = file.details["manifest"]
        source.ok("register", two, "--name", "versions", "--force", "--chunk-size", "1MiB")
        with pytest.raises(NoLivePeer):  # nobody has the rest of it; bytes of the other would be wrong
            file.read()
    assert fs.cat_file(url) == two.read_bytes()
    assert fs.info(url)["manifest"] != digest
    assert fs.cat_file(f"{url}@sha256:{fs.info(url)['manifest']}", 0, 9) == two.read_bytes()[:9]


def test_no_agent(tmp_path: Path) -> None:
    fs = MooncakeFileSystem(home=tmp_path / "home", skip_instance_cache=True)
    with pytest.raises(AgentNotRunning):
        fs.ls("data")


def test_ranges_that_are_not_there(fs: Any) -> None:
    details = fs.info("data/a.bin")
    for wanted in [(1, 0, 1), (0, 5, 4), (0, 0, 6 * MIB), (-1, 0, 1)]:
        with pytest.raises(UsageError, match="the object has no bytes"):
            list(fs._client.read(details["object"], details["manifest"], [wanted]))


# Programs that read so


def test_torch_load(cluster: Cluster, source: Agent, fs: Any, moved: Callable[[], int]) -> None:
    torch = pytest.importorskip("torch", reason="NOT THROUGH torch.load: torch is not installed")
    path = cluster.path("model.pt")
    saved = {f"w{number}": torch.arange(1_500_000) + number for number in range(3)}
    torch.save(saved, path)
    url = registered(cluster, source, "torch", path)
    with fs.open(url) as file:
        loaded = torch.load(file, weights_only=True)
    assert all(torch.equal(loaded[name], value) for name, value in saved.items())
    assert path.stat().st_size <= moved() <= 1.1 * path.stat().st_size


def parquet(path: Path, first: int) -> int:
    """Write a file with a column that is read, whose bytes are returned, and one that is not."""
    pa = pytest.importorskip("pyarrow", reason="NOT THROUGH PARQUET: pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="NOT THROUGH PARQUET: pyarrow is not installed")
    rows = 4_000_000
    table = pa.table(
        {"wanted": pa.array(range(first, first + rows), pa.int64()), "other": pa.array(range(rows), pa.int64())}
    )
    pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=rows)
    return int(pq.ParquetFile(path).metadata.row_group(0).column(0).total_compressed_size)


def test_pandas_reads_a_column(cluster: Cluster, source: Agent, fs: Any, moved: Callable[[], int]) -> None:
    pandas = pytest.importorskip("pandas", reason="NOT THROUGH PANDAS: it is not installed")
    path = cluster.path("table.parquet")
    used = parquet(path, 0)
    url = registered(cluster, source, "pandas", path)
    options = {"home": str(fs._client.home.root)}
    frame = pandas.read_parquet(url, columns=["wanted"], storage_options=options)
    assert frame["wanted"].sum() == sum(range(4_000_000))
    assert used <= moved() <= 1.1 * used


def test_datasets_reads_a_table(
    cluster: Cluster, source: Agent, fs: Any, moved: Callable[[], int], tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets", reason="NOT THROUGH DATASETS: it is not installed")
    path = cluster.path("rows.parquet")
    parquet(path, 7)
    url = registered(cluster, source, "datasets/rows.parquet", path)
    found = datasets.load_dataset(
        "parquet",
        data_files=url,
        split="train",
        storage_options={"home": str(fs._client.home.root)},
        cache_dir=str(tmp_path),
    )
    assert len(found) == 4_000_000
    assert found[7]["wanted"] == 14
    assert path.stat().st_size <= moved() <= 1.1 * path.stat().st_size
