"""Keys, secrets, legacy models and answers under attack: one sentence, at once, and nothing given away."""

import json
import os
import pickle
import resource
import struct
import subprocess
import zipfile
from collections import OrderedDict

import numpy as np
import pyrage
import pytest
import torch

from modelward.core.errors import FormatError, UnsafeFileError, UsageError
from modelward.io import age, container, legacy, sniff, tables
from modelward.io import safetensors as st
from modelward.io.legacy_child import plain_tensors


def header(content):
    """Return safetensors bytes whose header is ``content``."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text


def test_every_flipped_bit_is_called_altered():
    data = container.pack({"method": "sac"}, {"p": np.arange(6, dtype=np.uint8)})
    for position in range(len(data) * 8):
        altered = bytearray(data)
        altered[position // 8] ^= 1 << position % 8
        with pytest.raises(UnsafeFileError):
            container.unpack(bytes(altered), "k.mw")
    with pytest.raises(FormatError, match="no modelward key") as foreign:
        container.unpack(st.dump_arrays({"w": np.ones(2)}, {"arch": "mlp"}), "model.safetensors")
    assert foreign.value.exit_code == 2


def test_a_key_that_was_cut_short_is_one_sentence():
    data = container.pack({"method": "sac"}, {"p": np.arange(600, dtype=np.uint8)})
    with pytest.raises(UnsafeFileError) as cut:
        container.unpack(data[:-100], "k.mw")
    assert str(cut.value) == "k.mw was altered or is damaged, it may be cut short: take a backup"


def test_keys_for_recipients_open_for_them_alone_and_unaltered(tmp_path):
    pyrage = age.pyrage
    owner, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    path = tmp_path / "k.mw"
    container.write_mw(path, {"method": "sac"}, {"p": np.ones(3)}, recipients=[str(owner.to_public())])
    assert container.read_mw(path, identities=[age.Secret(str(owner))])[0]["method"] == "sac"
    messages = set()
    for identity in (str(other), "AGE-SECRET-KEY-1NONSENSE"):
        with pytest.raises(FormatError) as wrong:
            container.read_mw(path, identities=[age.Secret(identity)])
        messages.add(str(wrong.value))
    data = path.read_bytes()
    for position in range(0, len(data), 3):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :])
        with pytest.raises(FormatError) as damaged:
            container.read_mw(path, identities=[age.Secret(str(owner))])
        messages |= {str(damaged.value)} if position >= len(age.MAGIC) else set()
    assert len(messages) == 1  # whoever tries learns nothing from the words


def test_a_key_that_asks_for_all_memory_is_refused_before_anything_is_derived(monkeypatch):
    data = age.MAGIC + b"-> scrypt O8ch9ARAEZ6gcuZwDj9gIw 30\nCtREZL2pqPHhB3rnnVpTRuO8ch9ARAEZ6gcuZwDj9gI\n--- x\n"
    monkeypatch.setattr(age.pyrage.passphrase, "decrypt", lambda *_: pytest.fail("the library was asked"))
    with pytest.raises(UnsafeFileError, match="scrypt"):
        age.decrypt(data, passphrase=age.Secret("x"))


def test_secrets_come_whole_and_stay_hidden(tmp_path, monkeypatch):
    monkeypatch.delenv(age.VARIABLE, raising=False)
    assert age.read_secret() is None
    reading, writing = os.pipe()
    child = subprocess.Popen(["sh", "-c", "printf 'two '; sleep 0.1; printf 'pieces\\r\\nrest\\n'"], stdout=writing)
    os.close(writing)
    secret = age.read_secret(fd=reading)
    child.wait()
    os.close(reading)
    assert secret.reveal() == "two pieces"
    (tmp_path / "p").write_text("line\u2028one\n", encoding="utf-8")
    assert age.read_secret(file=tmp_path / "p").reveal() == "line\u2028one"
    for content in (b"", b"\nsecond\n", b"\xff\xfe\n"):
        (tmp_path / "p").write_bytes(content)
        with pytest.raises(UsageError):
            age.read_secret(file=tmp_path / "p")
    with pytest.raises(UsageError):
        age.read_secret(fd=987)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert "pieces" not in f"{secret} {secret!r} {[secret]} {vars(type(secret))}"


def repacked(source, target, change):
    """Write the members of a .pt file again, as ``change`` wants them."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name, data in change([(name, old.read(name)) for name in old.namelist()]):
            new.writestr(name, data)
    return target


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_torch_never_wrote_are_refused(tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "a.pt")
    changes = {
        "one folder": lambda members: [*members, ("other/x", b"")],
        "twice": lambda members: [*members, members[0]],
        "data.pkl": lambda members: [member for member in members if not member[0].endswith("data.pkl")],
    }
    for words, change in changes.items():
        with pytest.raises(UnsafeFileError, match=words):
            legacy.check_archive(repacked(tmp_path / "a.pt", tmp_path / "b.pt", change))
    assert sniff.kind_of(tmp_path / "a.pt") == "torch"


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_a_forged_sparse_tensor_is_refused(tmp_path):
    """Loaded without its invariants checked, its first use is a segmentation fault."""
    rows, columns = torch.tensor([0, 2**20]), torch.tensor([0])
    forged = torch.sparse_csr_tensor(rows, columns, torch.ones(1), (1, 2**20), check_invariants=False)
    torch.save(OrderedDict(w=forged), tmp_path / "s.pt")
    with pytest.raises(UnsafeFileError, match=r"s\.pt was refused"):
        legacy.convert_pt(tmp_path / "s.pt", tmp_path / "s.safetensors")
    assert not (tmp_path / "s.safetensors").exists()


def test_a_child_that_takes_too_long_is_stopped(tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(UnsafeFileError, match="longer than"):
        legacy.convert_pt(tmp_path / "a.pt", tmp_path / "a.safetensors", seconds=0.05)


def test_only_plain_tensors_leave_the_child():
    shared = torch.ones(8)
    tied = plain_tensors({"net": {"a": shared, "b": shared[:4].view(2, 2), "c": torch.ones(2, 3).t()}, "epoch": 3}, 1000)
    assert [tensor.is_contiguous() for tensor in tied.values()] == [True] * 3
    assert torch.equal(tied["b"], torch.ones(2, 2))
    refused = [
        {"w": torch.zeros(1).expand(10**9)}, {"w": torch.zeros(3, device="meta")}, {"w": torch.zeros(2).to_sparse()},
        {"w": torch.zeros(2, dtype=torch.complex64)}, {f"w{i}": shared for i in range(200)}, {"w": 3}, {3: shared}, {}, [shared], None,
    ]  # fmt: skip
    for loaded in refused:
        with pytest.raises(ValueError, match=r"tensor|state dict"):
            plain_tensors(loaded, 1000)


def test_old_pickles_and_other_files_are_named(tmp_path):
    contents = {
        "pickle": pickle.dumps(print, protocol=0), "onnx": b"\x08\x08\x12\x07pytorch:\x04\x0a\x02\x08\x01", "text": b"cat\ndog\nfrog\n",
        "csv": b"file,label\n0.png,1\n", "unknown": bytes(20), "gzip": b"\x1f\x8b\x08", "npy": b"\x93NUMPY\x01\x00", "age": age.MAGIC,
        "pgm": b"P5 1 1 255\n0", "ppm": b"P6 1 1 255\n000", "safetensors": header({}), "jpeg": b"\xff\xd8\xff\xe0",
    }  # fmt: skip
    for kind, data in contents.items():
        (tmp_path / "f").write_bytes(data)
        assert sniff.kind_of(tmp_path / "f") == kind
    for data in (b"", b".", b"\x08", b"I1\n.", b"\x80"):
        (tmp_path / "f").write_bytes(data)
        sniff.kind_of(tmp_path / "f")


def test_answers_rounded_to_one_decimal_are_accepted(tmp_path):
    path = tmp_path / "answers.csv"
    path.write_text("file," + ",".join(f"p{k}" for k in range(10)) + "\na.png,0.4,0.4,0.2,0.1,0,0,0,0,0,0\n")
    answers = tables.read_answers_csv(path, ["a.png"])
    assert answers.decimals == 1
    path.write_text("file,p0,p1\na.png,0.41234567,0.68765433\n")
    with pytest.raises(FormatError, match=r"a\.png"):
        tables.read_answers_csv(path, ["a.png"])


def test_a_line_of_a_hundred_million_cells_is_not_split(tmp_path):
    path = tmp_path / "answers.csv"
    for text in ("," * 20_000_000, "file,label\n" + "," * 20_000_000):
        path.write_text(text)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(FormatError, match="cells"):
            tables.read_answers_csv(path, ["a.png"])
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000


def test_a_bad_line_is_named_by_its_number(tmp_path):
    path = tmp_path / "answers.csv"
    path.write_text("file,label\n\n\na.png,1\nb.png\n")
    with pytest.raises(FormatError, match="line 5"):
        tables.read_answers_csv(path, ["a.png", "b.png"])


def test_a_busy_machine_is_asked_again_before_a_file_of_ours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = age.MAGIC + b"-> scrypt O8ch9ARAEZ6gcuZwDj9gIw 15\nCtREZL2pqPHhB3rnnVpTRuO8ch9ARAEZ6gcuZwDj9gI\n--- x\n"
    asked = []

    def busy(given: bytes, passphrase: str) -> bytes:
        asked.append((given, passphrase))
        if len(asked) < 4:
            raise pyrage.DecryptError("Excessive work parameter for passphrase.")
        return b"mine"

    monkeypatch.setattr(age, "PAUSE", 0)
    monkeypatch.setattr(pyrage.passphrase, "decrypt", busy)
    assert age.decrypt(data, passphrase=age.Secret("open sesame")) == b"mine"
    assert asked == [(data, "open sesame")] * 4
    asked.clear()
    monkeypatch.setattr(age, "TRIES", 2)
    with pytest.raises(FormatError, match="more work to open than this machine can spend now"):
        age.decrypt(data, passphrase=age.Secret("open sesame"))
    assert len(asked) == 2
