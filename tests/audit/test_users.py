"""Many users: distinct secrets and codewords, revocation that is honoured, and who is named for a leaked copy."""

import dataclasses
import datetime as dt

import pytest
import torch

from modelward.audit.enrolment import Protected
from modelward.audit.issuing import grant_users, issue_keys, issued_key
from modelward.audit.tracing import Suspicion, alone, ranked, trace
from modelward.core.errors import InputError, Undecided, UsageError
from modelward.core.rng import generator
from modelward.core.verdict import Decision, Verdict
from modelward.keys import write_key
from modelward.keys.grants import Grant
from modelward.keys.master import Master
from modelward.keys.registry import Registry
from modelward.marking.codebooks import codebook
from modelward.models import load_model, save_model
from modelward.ownership.adi import Adi
from modelward.ownership.deepmarks import DeepMarks

TODAY = dt.datetime.now(dt.UTC).date()
USERS = [(f"user{number}", None) for number in range(100)]
SMALL = {"count": 40, "epochs": 12, "lr": 0.05, "batch": 32, "significance": 0.001}


@pytest.fixture
def book(tmp_path):
    return Registry(tmp_path / "registry.sqlite", create=True)


@pytest.fixture(scope="module")
def master():
    return Master({1: bytes(range(32))})  # always the same: a net this small learns some keys better than others


def issue(book, master, users, *, method="zhang", settings=None, make=None):
    grants = grant_users(book, master, method, settings or {}, users)
    return list(issue_keys(book, master, method, settings or {}, grants, folder=book.path.parent / "keys", make=make))


def test_a_hundred_users_have_distinct_secrets_numbers_and_codewords(book, master):
    done = issue(book, master, USERS)
    keys = [issued_key(book, each.grant) for each in done]
    assert [each.grant.number for each in done] == [*range(100)]
    assert len({bytes(key.tensors["secret"].tolist()) for key in keys}) == 100
    assert [key.facts["settings"]["user"] for key in keys] == [user for user, _ in USERS]
    code = codebook(100)[[each.grant.number for each in done]]
    assert len({tuple(row) for row in code.tolist()}) == 100
    assert int((code[:, None] != code[None]).sum(2).fill_diagonal_(99).min()) >= 10  # bits between any two users


def test_users_of_one_code_share_its_secret_and_differ_in_their_numbers(book, master):
    keys = [issued_key(book, each.grant) for each in issue(book, master, USERS[:5], method="deepmarks")]
    assert len({bytes(key.tensors["secret"].tolist()) for key in keys}) == 1
    assert [key.facts["settings"]["number"] for key in keys] == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError, match=r"number must be in 0\.\.30"):
        issue(book, master, USERS[5:40], method="deepmarks")
    assert len(book.grants(purpose="deepmarks")) == 5  # none of them was recorded
    with pytest.raises(UsageError, match="number is set for each user"):
        issue(book, master, [("ann", None)], method="deepmarks", settings={"number": 3})


def test_issuing_goes_on_where_it_was_stopped(book, master):
    grants = grant_users(book, master, "zhang", {}, USERS[:3])
    begun = issue_keys(book, master, "zhang", {}, grants, folder=book.path.parent)
    next(begun)
    begun.close()
    assert [grant.key_file is not None for grant in book.grants()] == [True, False, False]
    with pytest.raises(UsageError, match="user0 has a grant"):
        grant_users(book, master, "zhang", {}, USERS[:3])
    assert [each.grant.number for each in issue(book, master, USERS[1:4])] == [1, 2, 3]


def test_another_master_secret_is_noticed(book, master):
    issue(book, master, USERS[:1])
    with pytest.raises(InputError, match=r"not the one that registry\.sqlite was filled with"):
        issue(book, Master.fresh(), USERS[1:2])
    assert issue(book, master.rotated(), USERS[:1])[0].grant.number == 0  # renewed under the next generation


def test_a_key_that_is_not_the_one_that_was_issued_is_refused(book, master):
    first, second = issue(book, master, USERS[:2])
    write_key(first.key, issued_key(book, second.grant))
    with pytest.raises(InputError, match="is not the key that user user0 was issued"):
        trace(first.key, book, "zhang")


def test_secrets_alone_name_nobody(book, master, tmp_path):
    with pytest.raises(Undecided, match="nobody was issued"):
        trace(tmp_path / "x", book, "zhang")
    issue(book, master, USERS[:2])
    with pytest.raises(Undecided, match="secrets alone"):
        trace(tmp_path / "x", book, "zhang")


@pytest.fixture(scope="module")
def leaked(tmp_path_factory, master, parts, victim, train_net):
    """Return a registry of three users with marked copies, one of them revoked, and a model of nobody."""
    folder = tmp_path_factory.mktemp("users")
    nulls = [train_net("cnn:width=4", parts.owner, 50 + i, epochs=1) for i in range(20)]
    book = Registry(folder / "registry.sqlite", create=True)

    def make(settings, secret, _user):
        method = Adi(**settings) if "count" in settings else DeepMarks(**settings)
        model, key = method.protect(victim, parts.owner, secret=secret, nulls=nulls, rng=generator(3))
        return Protected(model, key, changed=True)

    done = {each.grant.user: each for each in issue(book, master, USERS[:3], method="adi", settings=SMALL, make=make)}
    coded = {
        each.grant.user: each for each in issue(book, master, USERS[:3], method="deepmarks", settings={"batch": 32, "epochs": 6}, make=make)
    }
    book.revoke("user1")
    save_model(folder / "nobody.safetensors", nulls[0])
    return book, {"adi": done, "deepmarks": coded}, folder / "nobody.safetensors"


@pytest.mark.parametrize("method", ["adi", "deepmarks"])
@pytest.mark.parametrize("user", ["user0", "user1", "user2"])
def test_the_user_whose_copy_leaked_is_named_revoked_or_not(leaked, user, method):
    book, done, _ = leaked
    found = trace(done[method][user].model, book, method)
    assert found.named == (user,), found
    assert found.users[0].state == ("revoked" if user == "user1" else "active")
    assert found.margin > 0
    assert found.users[0].corrected == pytest.approx(min(1, 3 * found.users[0].p))


@pytest.mark.parametrize("method", ["adi", "deepmarks"])
def test_a_model_of_nobody_names_nobody(leaked, method):
    book, _, nobody = leaked
    assert trace(nobody, book, method).named == ()


def test_two_who_mix_their_copies_are_both_named(leaked, tmp_path):
    book, done, _ = leaked
    one, two = (load_model(done["deepmarks"][user].model).model for user in ("user0", "user2"))
    other = two.state_dict()
    one.load_state_dict(
        {name: (value + other[name]) / 2 if value.is_floating_point() else value for name, value in one.state_dict().items()}
    )
    save_model(tmp_path / "mixed.safetensors", one)
    assert trace(tmp_path / "mixed.safetensors", book, "deepmarks").named == ("user0", "user2")


def test_a_code_is_not_read_from_answers(leaked, tmp_path):
    book, _, _ = leaked
    (tmp_path / "answers.csv").write_text("file,label\n00000.png,1\n")
    with pytest.raises(UsageError, match="read from the suspect's weights"):
        trace(tmp_path / "answers.csv", book, "deepmarks")


def test_a_revoked_user_is_refused_and_traced(leaked):
    book, _, _ = leaked
    with pytest.raises(InputError, match="user1 for adi is revoked"):
        book.require("user1", "adi")


def verdict(statistic: float, p: float | None, parametric: float | None = None) -> Verdict:
    return Verdict(
        Decision.UNDECIDED,
        "zhang",
        "hardened",
        "s",
        statistic,
        0.3,
        p,
        199,
        "other secrets",
        1,
        "label",
        statistic <= 0.3,
        parametric_p=parametric,
    )


def grant(number: int, generation: int = 1) -> Grant:
    return Grant("zhang", f"user{number}", generation, number, "active", "2020-01-01", None, None, "00" * 32, None, "k")


def test_chance_over_all_users_is_corrected_for():
    ranks = ranked({grant(n): verdict(0.1 if n == 7 else 0.9, 1 / 21) for n in range(100)})
    assert (ranks[0].user, ranks[0].corrected) == ("user7", 1.0)
    assert alone(ranks, 0.8)[0] == ()  # twenty draws tell no hundred users apart
    known = ranked({grant(n): verdict(0.1 if n == 7 else 0.9, 1 / 21, 1e-9 if n == 7 else 0.5) for n in range(100)})
    assert known[0].corrected == pytest.approx(1e-7)
    assert alone(known, 0.8)[0] == ("user7",)
    assert alone(known, 0.0)[0] == ()
    assert alone(ranked({grant(1): verdict(0.1, None)}), None)[0] == ()


def test_keys_without_draws_name_nobody_and_clear_nobody():
    found = dataclasses.replace(verdict(0.0, None, 1e-10), threshold=None)
    named, notes = alone(ranked({grant(1): found}), None)
    assert named == ()
    assert "issue the keys and the copies again" in notes[0]
    assert "was removed" not in notes[0]


def test_a_grant_that_would_never_hold_is_refused(book, master):
    with pytest.raises(UsageError, match="2020-01-01 is past"):
        issue(book, master, [("ann", None), ("bob", "2020-01-01")])
    assert book.grants() == []
    assert issue(book, master, [("ann", TODAY.isoformat())])[0].grant.state() == "active"


def test_a_renewed_user_is_no_rival_of_his_own():
    users = ranked({grant(1): verdict(0.1, 1 / 21, 1e-9), grant(1, 2): verdict(0.1, 1 / 21, 1e-9), grant(2): verdict(0.9, 1.0, 1.0)})
    assert [row.user for row in users] == ["user1", "user2"]


def test_misattribution_among_a_hundred_users_is_below_one_in_a_thousand():
    """Copies of nobody answer every key by chance: 10,000 of them are traced by 100 users' keys of 100 images each, a hit with 1 in 10."""
    from modelward.statistics import binomial_p, required_matches

    users, images, chance, suspects = 100, 100, 0.1, 10_000
    drawn = torch.distributions.Binomial(images, torch.tensor(chance))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hits = drawn.sample((suspects, users)).long()
    ceiling = 1 - required_matches(images, chance, 1e-6) / images
    named = 0
    for best in hits.amax(1).unique().tolist():
        p = binomial_p(best, images, chance)
        row = Suspicion("user", 0, "active", 1 - best / images, ceiling, p, min(1, users * p), 1 - best / images <= ceiling)
        named += int((hits.amax(1) == best).sum()) * len(alone([row], None)[0])
    assert int(hits.amax()) > 20  # the best of a million draws comes near, and is not enough
    assert named / suspects <= 0.001
