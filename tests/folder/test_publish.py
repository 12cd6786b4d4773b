"""`lam publish`, against a Hub on loopback: all of a model or none of it, and it loads as promised."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import folders as folder
import huggingface_hub
import pytest
import torch
from hub import Hub, Repo
from huggingface_hub import constants
from safetensors.torch import save_file

import lam_model
from lam_model import cli
from lam_model.folder.base import sha256
from lam_model.folder.publish import publish
from lam_model.runtime.embed import embed
from lam_model.training.start import convert

# Arguments: whether the package is imported, whether there is a network, the folders and revisions, a graph.
READ = """
import json, socket, sys
package, network = sys.argv[1] == "package", sys.argv[2] == "online"
main, other, branch, commit, graph = sys.argv[3:]
connections = []
def connect(self, address):
    connections.append(address)
    raise OSError("there is no network")
if not network:
    socket.socket.connect = socket.socket.connect_ex = connect
if package:
    import lam_model
else:
    sys.modules["lam_model"] = None  # importing it fails
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

def check(model, folder):
    golden = json.load(open(folder + "/manifest.json"))["golden"]
    vectors = model.encode([g["text"] for g in golden]).tolist()
    error = max(abs(a - b) for x, g in zip(vectors, golden) for a, b in zip(x, g["vector"]))
    assert error < 1e-4, (folder, error)
    check_origin(model[0].auto_model)

def check_origin(model):
    assert type(model).__module__.split(".")[0] == ("lam_model" if package else "transformers_modules"), type(model)

flag = {} if package else {"trust_remote_code": True}
check(SentenceTransformer("org/lam", device="cpu", **flag), main)
model = AutoModel.from_pretrained("org/lam", **flag)
check_origin(model)
weights = load_file(main + "/model.safetensors")
assert weights.keys() == model.state_dict().keys()
assert all((weights[name] == tensor).all() for name, tensor in model.state_dict().items())
if package:
    check(lam_model.load("org/lam", device="cpu"), main)
    check(lam_model.load("org/lam", revision=branch, device="cpu"), other)
    check(lam_model.load("org/lam", revision=commit, device="cpu"), main)
    from lam_model.folder.hub import find
    assert open(find("org/lam", None, ["onnx/none.onnx", graph]) / graph, "rb").read() == b"graph"
assert not connections, connections
print("all loaded")
"""


def build(out, base, seed):
    """A folder ready to be published: with a card and an ONNX file."""
    torch.manual_seed(seed)
    weights = {name: tensor for name, tensor in convert(base).state_dict().items() if ".delta_net." in name}
    path = out.with_name(f"{out.name}.safetensors")
    save_file({name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in weights.items()}, path)
    folder.build(out, path, base)
    (out / "README.md").write_text(f"# LAM\n\n<!-- deltanet_sha256: {manifest(out)['deltanet_sha256']} -->\n")
    (out / "onnx").mkdir()
    graph = out / "onnx" / f"model{seed}.onnx"
    graph.write_bytes(b"graph")
    listed = manifest(out)
    listed["sha256"][f"onnx/{graph.name}"] = sha256(graph)
    (out / folder.MANIFEST).write_text(json.dumps(listed))
    return out


def manifest(path):
    return json.loads((path / folder.MANIFEST).read_text())


def files(path):
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def ready(tiny_base, tmp_path_factory):
    return build(tmp_path_factory.mktemp("ready") / "lam", tiny_base, 1)


@pytest.fixture(scope="module")
def other(tiny_base, tmp_path_factory):
    """Of other weights than `ready`."""
    return build(tmp_path_factory.mktemp("other") / "lam", tiny_base, 2)


@pytest.fixture
def copy(ready, tmp_path):
    return shutil.copytree(ready, tmp_path / "lam")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub that this process talks to, and has a token for."""
    with Hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", hub.token)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        huggingface_hub.close_session()
        yield hub
        huggingface_hub.close_session()


@pytest.fixture
def hashed_only(monkeypatch):
    """For tests of what comes after the verification: the golden vectors are left out of it."""
    monkeypatch.setattr("lam_model.folder.publish.verify", lambda path, embed: folder.check(path))


def fails(capsys, *argv):
    """The one sentence on stderr of a `lam publish` that must fail with code 2."""
    capsys.readouterr()
    assert cli.main(["publish", *map(str, argv)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]  # what comes before is a progress bar
    assert error.startswith("lam: error: ")
    return error


def run(hub, home, *command, **environment):
    """A process of its own, to which `hub` is the Hub, with its cache in `home`."""
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    settings |= {"HF_HUB_OFFLINE": "0", **environment}
    result = subprocess.run(
        [sys.executable, *command], env=os.environ | settings, capture_output=True, text=True, timeout=600, cwd=home
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_published_model_loads_from_the_hub_and_then_offline_from_the_cache(hub, ready, other, tmp_path):
    (tmp_path / "publisher").mkdir()
    command = ["-m", "lam_model.cli", "publish", "org/lam", "--folder", str(ready)]
    output = run(hub, tmp_path / "publisher", *command, HF_TOKEN=hub.token)
    commit = hub.repos["org/lam"].branches["main"]
    assert output.endswith(f"{hub.url}/org/lam/commit/{commit}\n")
    publish("org/lam", other, embed, revision="feature/other")
    (graph,) = (name for name in files(ready) if name.startswith(folder.ONNX))
    for package in ("package", "no package"):
        home = tmp_path / package
        home.mkdir()
        for network in ("online", "offline"):
            arguments = [package, network, str(ready), str(other), "feature/other", commit, graph]
            offline = str(int(network == "offline"))
            environment = {"HF_HUB_OFFLINE": offline, "HF_TOKEN": ""}
            assert "all loaded" in run(hub, home, "-c", READ, *arguments, **environment)


def test_a_folder_becomes_one_commit_of_all_its_files(hub, ready):
    url = publish("org/lam", ready, embed)
    repo = hub.repos["org/lam"]
    assert url.endswith(repo.branches["main"])
    assert hub.calls["commit"] == 1
    assert repo.commits[repo.branches["main"]] == {".gitattributes": b"", **files(ready)}
    assert not repo.private


@pytest.mark.usefixtures("hashed_only")
def test_the_names_and_sizes_are_printed_before_anything_is_sent(hub, ready, capsys):
    hub.faults["create"] = "refuse"
    assert cli.main(["publish", "org/lam", "--folder", str(ready)]) == 2
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    sizes = {name: len(content) for name, content in files(ready).items()}
    assert {name: int(size.replace(",", "")) for size, name in lines} == {**sizes, "in all": sum(sizes.values())}


@pytest.mark.usefixtures("hashed_only")
def test_a_dry_run_prints_the_same_and_sends_nothing(hub, ready, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert cli.main(["publish", "org/lam", "--folder", str(ready), "--dry-run", "--private", "--revision", "v1"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in files(ready))
    assert output.endswith("dry run: nothing was sent\n")
    assert not hub.calls


@pytest.mark.usefixtures("hashed_only")
def test_a_private_model_is_private(hub, ready):
    assert cli.main(["publish", "org/lam", "--folder", str(ready), "--private"]) == 0
    assert hub.repos["org/lam"].private


@pytest.mark.usefixtures("hashed_only")
def test_nothing_private_goes_into_a_public_model(hub, ready, capsys):
    hub.repos["org/lam"] = Repo(private=False)
    before = hub.repos["org/lam"].commit("main", {})
    assert "make it private on the Hub, or leave --private out" in fails(
        capsys, "org/lam", "--folder", ready, "--private"
    )
    assert hub.repos["org/lam"].branches == {"main": before}


@pytest.mark.usefixtures("hashed_only")
def test_a_revision_leaves_main_as_it_is_and_is_committed_to_again(hub, ready, other):
    publish("org/lam", ready, embed)
    repo = hub.repos["org/lam"]
    main = repo.branches["main"]
    for path in (other, ready):
        publish("org/lam", path, embed, revision="v1")
        assert repo.branches["main"] == main
        assert repo.commits[repo.branches["v1"]] == {".gitattributes": b"", **files(path)}


@pytest.mark.usefixtures("hashed_only")
def test_onnx_files_of_other_weights_go_and_what_else_is_there_stays(hub, ready, other):
    hub.repos["org/lam"] = Repo(private=False)
    hub.repos["org/lam"].commit("main", {"figure.png": b"figure", **files(ready)})
    publish("org/lam", other, embed)
    repo = hub.repos["org/lam"]
    assert repo.commits[repo.branches["main"]] == {"figure.png": b"figure", **files(other)}


@pytest.mark.usefixtures("hashed_only")
def test_what_git_and_the_hub_put_into_a_folder_is_no_stray(hub, copy):
    (copy / ".gitattributes").write_bytes(b"*.safetensors filter=lfs")
    expected = files(copy)
    for name in (".git/config", ".git/objects/aa", ".cache/huggingface/download/config.json.metadata"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(b"x")
    publish("org/lam", copy, embed)
    repo = hub.repos["org/lam"]
    assert repo.commits[repo.branches["main"]] == expected


def with_other_golden_vectors(path):
    content = manifest(path)
    vectors = [golden["vector"] for golden in content["golden"]]
    for golden, vector in zip(content["golden"], reversed(vectors), strict=True):
        golden["vector"] = vector
    (path / folder.MANIFEST).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: (path / "vocab.txt").write_text("x"), "vocab.txt was altered or damaged"),
        (lambda path: (path / "modeling_lam.py").unlink(), "modeling_lam.py is missing"),
        (with_other_golden_vectors, "golden vectors differ"),
        (lambda path: (path / "README.md").unlink(), "README.md is missing: write the card again"),
        (lambda path: (path / "README.md").write_text("# LAM\n"), "README.md is the card of other weights"),
        (
            lambda path: (path / "README.md").write_text(f"<!-- deltanet_sha256: {'0' * 64} -->\n"),
            "README.md is the card of other weights",
        ),
        (lambda path: (path / "README.md").write_text("# LAM\n", encoding="utf-16"), "README.md is not UTF-8 text"),
        (lambda path: (path / "notes.txt").write_text("secret"), "notes.txt is not a file of the model"),
        (lambda path: (path / ".gitignore").write_text("secret"), ".gitignore is not a file of the model"),
        (lambda path: (path / "1_Pooling" / "more.bin").write_text("x"), "more.bin is not a file of the model"),
    ],
)
def test_an_unverified_folder_a_stale_card_and_a_stray_file_are_refused_before_a_connection(
    hub, copy, capsys, change, message
):
    change(copy)
    assert message in fails(capsys, "org/lam", "--folder", copy)
    assert not hub.calls


@pytest.mark.usefixtures("hashed_only")
@pytest.mark.parametrize("name", ["lam", "a/b/c", "org/-lam", "org/la m"])
def test_a_name_that_cannot_be_is_refused(hub, ready, capsys, name):
    assert name in fails(capsys, name, "--folder", ready, "--dry-run")


@pytest.mark.usefixtures("hashed_only")
def test_without_a_token_nothing_is_tried(hub, ready, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert "there is no token for the Hub: run `hf auth login`, or set HF_TOKEN" in fails(
        capsys, "org/lam", "--folder", ready
    )
    assert not hub.calls


@pytest.mark.usefixtures("hashed_only")
def test_a_token_that_the_hub_does_not_know_is_refused(hub, ready, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "use a token that may write there" in fails(capsys, "org/lam", "--folder", ready)
    assert not hub.repos


@pytest.mark.usefixtures("hashed_only")
@pytest.mark.parametrize(
    ("call", "fault", "message"),
    [
        ("preupload", "refuse", "you must use a write token"),
        ("commit", "refuse", "you must use a write token"),
        ("commit", "drop", "the connection to the Hub broke"),
    ],
)
def test_a_refused_upload_and_a_dropped_connection_leave_the_hub_as_it_was(
    hub, ready, other, capsys, call, fault, message
):
    publish("org/lam", ready, embed)
    branches = dict(hub.repos["org/lam"].branches)
    hub.faults[call] = fault
    for argv in (["org/lam"], ["org/lam", "--revision", "v1"], ["org/new"]):
        error = fails(capsys, *argv, "--folder", other)
        assert f"{argv[0]} was not published" in error
        assert message in error
    assert hub.repos["org/lam"].branches == branches
    assert list(hub.repos["org/new"].commits.values()) == [{".gitattributes": b""}]


@pytest.mark.usefixtures("hashed_only")
@pytest.mark.parametrize(
    ("fault", "message"), [("refuse", "you must use a write token"), ("drop", "the connection to the Hub broke")]
)
def test_a_model_that_cannot_be_made_is_an_error_in_a_sentence(hub, ready, capsys, fault, message):
    hub.faults["create"] = fault
    assert message in fails(capsys, "org/lam", "--folder", ready)
    assert not hub.repos


@pytest.mark.usefixtures("hashed_only")
def test_a_branch_that_could_not_be_removed_again_is_named(hub, ready, other, capsys):
    publish("org/lam", ready, embed)
    hub.faults |= {"commit": "drop", "remove_branch": "drop"}
    error = fails(capsys, "org/lam", "--folder", other, "--revision", "v1")
    assert "the new branch v1 still holds what main holds" in error


@pytest.mark.usefixtures("hashed_only")
def test_a_hub_that_is_not_there_is_an_error_in_a_sentence(hub, ready, capsys, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert "the connection to the Hub broke" in fails(capsys, "org/lam", "--folder", ready)


def test_a_connection_that_breaks_while_loading_is_an_error_in_a_sentence(hub):
    hub.repos["org/lam"] = Repo(private=False)
    hub.faults["info"] = "drop"
    with pytest.raises(FileNotFoundError, match="org/lam is no folder, and cannot be fetched from the Hub"):
        lam_model.load("org/lam")
