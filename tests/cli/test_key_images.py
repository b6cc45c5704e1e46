"""Users' key images in the shell: issued from the owner's key, written as PNG, and traced until JPEG kills the name in them."""

import hashlib
import json

import pytest
import torch
from PIL import Image

from modelward.core.rng import generator
from modelward.keys import read_key, write_key
from modelward.keys.grants import Request
from modelward.keys.registry import Registry
from modelward.models import save_model
from modelward.ownership.additional_class import AdditionalClass

METHOD = "additional-class"
ISSUE = ("issue", METHOD, "--key", "owner.mw", "--model", "marked.safetensors", "-q")
TRACE = ("trace", "--method", METHOD, "--key", "owner.mw")


@pytest.fixture(scope="module")
def mark(mlp_victim, parts):
    method = AdditionalClass(variant="paper", count=6, epochs=15, batch=32, lr=0.05)
    return method.protect(mlp_victim, parts.owner, rng=generator(0))


@pytest.fixture
def folder(tmp_path, monkeypatch, mark, mlp_victim, shell):
    """Write a marked model and its key, the model before, and a master secret."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODELWARD_PASSPHRASE", raising=False)
    save_model(tmp_path / "marked.safetensors", mark[0])
    save_model(tmp_path / "before.safetensors", mlp_victim)
    write_key(tmp_path / "owner.mw", mark[1])
    assert shell("key", "new-master", "--out", "master.json").code == 0
    return tmp_path


@pytest.fixture
def issued(folder, shell):
    """Issue two users an image each, and write them."""
    for user in ("ann", "bob"):
        assert shell(*ISSUE, "--user", user).code == 0
        found = shell("probes", f"keys/{user}.{METHOD}.mw", "--out", user)
        assert found.code == 0
        assert "as PNG" in found.out
    return folder


def said(found):
    """Return what was printed, in one line."""
    return " ".join((found.out + found.err).split())


def test_a_users_image_names_the_user_and_the_model_knows_it(issued, shell):
    keys = [read_key(issued / "keys" / f"{user}.{METHOD}.mw") for user in ("ann", "bob")]
    assert [set(key.tensors) for key in keys] == [{"probes"}] * 2  # no secret: who holds it writes names
    assert not torch.equal(keys[0].tensors["probes"] >> 1, keys[1].tensors["probes"] >> 1)  # an image of one's own
    for user in ("ann", "bob"):
        found = shell(*TRACE, f"{user}/00000.png", "--model", "marked.safetensors", "--json")
        told = json.loads(found.out)
        assert (found.code, told["exit_code"], told["named"]) == (1, 1, [user])
        assert told["images"] == [{"file": "00000.png", "user": user, "state": "active", "remark": ""}]
    strange = shell(*TRACE, "ann", "--model", "before.safetensors")
    assert strange.code == 3
    assert "it carries the name of ann, but the network does not answer this image" in said(strange)


@pytest.mark.usefixtures("issued")
def test_what_was_saved_anew_says_why_it_names_nobody(shell):
    image = Image.open("ann/00000.png")
    image.save("ann.jpg", quality=95, subsampling=0)
    Image.open("ann.jpg").save("again.png")
    for name in ("ann.jpg", "again.png"):
        found = shell(*TRACE, name)
        assert found.code == 3
        assert "UNKNOWN" in found.out
        assert "the payload died in 1 of 1 key images" in said(found)
        assert "does not live through JPEG" in said(found)
    image.resize((16, 16)).save("large.png")
    assert "it is 16x16, and the key images are 8x8" in said(shell(*TRACE, "large.png"))
    Image.new("RGB", (8, 8)).save("black.png")  # no image of this key
    none = shell(*TRACE, "black.png")
    assert none.code == 3
    assert "no payload can be read" in said(none)


def test_revoked_and_expired_users_are_named_with_their_state(issued, shell):
    assert shell("revoke", "bob", "--method", METHOD).code == 0
    digest = hashlib.sha256(b"cy").hexdigest()
    Registry(issued / "registry.sqlite").issue([Request("cy", digest, "2020-01-31")], purpose=METHOD, generation=1)
    key = read_key(issued / "owner.mw")
    pixels = AdditionalClass().enrolled(key).issue(key, ["cy"], first=2)[0]
    (issued / "bob" / "more").mkdir()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(issued / "bob" / "more" / "cy.png")
    Image.new("RGB", (9, 9)).save(issued / "bob" / "0.png")
    found = shell(*TRACE, "bob", "--json")
    told = json.loads(found.out)
    assert (found.code, told["named"]) == (1, ["bob", "cy"])
    assert [(row["file"], row["state"]) for row in told["images"]] == [
        ("00000.png", "revoked"),
        ("more/cy.png", "expired"),
        ("0.png", None),
    ]
    words = said(shell(*TRACE, "bob"))
    assert "the grant of user bob for additional-class is revoked since" in words
    assert "is expired since 2020-01-31" in words


@pytest.mark.usefixtures("issued")
def test_names_may_be_said_and_the_owners_images_are_told(shell):
    nobody = (*TRACE, "ann", "--registry", "none.sqlite")
    assert shell(*nobody).code == 3
    assert "names nobody who is known" in said(shell(*nobody, "--user", "bob"))
    assert "the registry knows no such user" in said(shell(*nobody, "--user", "ann"))
    assert shell("probes", "owner.mw", "--out", "own").code == 0
    assert "it is an image that the owner keeps" in said(shell(*TRACE, "own/00000.png"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*ISSUE[:4], "--user", "eve"), "say --model MARKED"),
        ((*ISSUE, "--user", "owner"), "issue under another name"),
        ((*ISSUE[:4], "--model", "before.safetensors", "--user", "eve"), "pass the model that was marked with it"),
        (("issue", METHOD, "--key", f"keys/ann.{METHOD}.mw", "--model", "marked.safetensors", "--user", "eve"), "this is a user's key"),
        ((*ISSUE, "--out-model", "o.safetensors", "--user", "eve"), "--out-model is for locks"),
        (("trace", "ann", "--method", METHOD), "say --key KEY"),
        (("trace", "ann", "--method", METHOD, "--key", f"keys/ann.{METHOD}.mw"), "this is a user's key"),
        (("trace", "ann", "--method", "zhang", "--key", "owner.mw"), "a key of additional-class, not of zhang"),
        (("trace", "ann", "--method", "zhang", "--key", "z.mw"), "carry nobody's name"),
        (("trace", "ann", "--method", "zhang", "--model", "marked.safetensors"), "say --key KEY and the mark's --method"),
        (("verify", "marked.safetensors", "--key", f"keys/ann.{METHOD}.mw"), "a user's secret and no mark"),
    ],
)
def test_what_cannot_be_issued_or_traced_is_said_in_one_sentence(issued, shell, mark, words, told):
    key = mark[1]
    write_key(issued / "z.mw", type(key)("zhang", key.variant, key.model_digest, key.facts, key.tensors))
    found = shell(*words)
    assert found.code in {2, 4}, found.err
    assert told in said(found)
    assert "Traceback" not in found.err
    assert all(grant.user in {"ann", "bob"} for grant in Registry(issued / "registry.sqlite").grants())


def test_a_secret_alone_shows_no_images_and_issue_says_so(folder, shell):
    assert "users get key images" in said(shell("issue", METHOD, "--user", "ann"))
    found = shell("probes", f"keys/ann.{METHOD}.mw", "--out", "ann")
    assert found.code == 4
    assert "no images to show" in found.err
    assert not (folder / "ann").exists()
