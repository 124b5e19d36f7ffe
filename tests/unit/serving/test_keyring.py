"""API keys: their text, who is let in, and how fast a change by another process counts."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.clock import SystemClock
from convene.errors import BadRequest, Conflict, NotFound, Unauthorized
from convene.limits.allowance import Allowance
from convene.serving import keyring as module
from convene.serving.base_accounts import KeyDraft
from convene.serving.keyring import LOCAL, REFUSAL_S, KeyRing, ensure_first_key, form_key, parse_key
from convene.store.base import KeyChange, KeyRecord, StoreFault
from convene.store.base_accounts import Member, Team, TeamChange, User, UserChange
from convene.store.memory import MemoryKeys, MemoryStore

if TYPE_CHECKING:
    from convene.serving.base import Gatekeeper


class MovedClock(SystemClock):
    """Real randomness, and a time that the test moves."""

    def __init__(self) -> None:
        self.at = 1_000_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class CountedKeys(MemoryKeys):
    """A store that counts look-ups and can be made to fail or to wait in the middle of one."""

    def __init__(self) -> None:
        super().__init__()
        self.lookups = 0
        self.broken = False
        self.polled = asyncio.Event()
        self.reading = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def get(self, key_id: str) -> KeyRecord | None:
        self.lookups += 1
        record = await super().get(key_id)
        self.reading.set()
        await self.go_on.wait()
        return record

    async def version(self) -> int:
        if self.broken:
            raise StoreFault("The key store cannot be used.")
        self.polled.set()
        return await super().version()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def keys() -> CountedKeys:
    return CountedKeys()


@pytest.fixture
def ring(keys: CountedKeys, clock: MovedClock) -> KeyRing:
    return KeyRing(keys, clock)


async def refusal(ring: KeyRing, header: str | None) -> str:
    """Return the message with which `header` is refused."""
    with pytest.raises(Unauthorized) as caught:
        await ring.check(header)
    assert caught.value.code == "invalid_api_key"
    return caught.value.message


# The text of a key.


def test_a_key_has_the_prefix_an_id_a_secret_and_a_check(clock: MovedClock) -> None:
    text = form_key("abcDEF123456", clock)
    assert re.fullmatch(r"convene_abcDEF123456_[0-9A-Za-z]{38}", text)
    parts = parse_key(text)
    assert parts is not None
    assert parts.id == "abcDEF123456"
    assert parts.digest == hashlib.sha256(text.encode()).digest()


def test_every_mistyped_letter_is_noticed_without_a_look_up(clock: MovedClock) -> None:
    text = form_key("abcDEF123456", clock)
    for place in range(len("convene_"), len(text)):
        for letter in "0Zz_-":
            typo = text[:place] + letter + text[place + 1 :]
            assert typo == text or parse_key(typo) is None


def test_every_pair_of_swapped_neighbours_is_noticed(clock: MovedClock) -> None:
    text = form_key("abcDEF123456", clock)
    for place in range(len(text) - 1):
        swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
        assert swapped == text or parse_key(swapped) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "convene_",
        "sk-proj-abc",
        "convene_a_b",
        "Convene_",
        "convene_" + "é" * 51,
        "\ud800",
        "x" * 100_000,
        "convene_\n",
    ],
)
def test_what_is_no_key_is_no_key(text: str) -> None:
    assert parse_key(text) is None


def test_a_key_with_anything_around_it_is_no_key(clock: MovedClock) -> None:
    text = form_key("abcDEF123456", clock)
    for wrong in (text + "\n", " " + text, text + "x", text[:-1], text.upper()):
        assert parse_key(wrong) is None


# Who is let in.


@pytest.mark.req("HDR-01")
async def test_the_holder_of_a_key_is_let_in_as_its_record_says(ring: KeyRing) -> None:
    text, record = await ring.create("lab", "free", owner="team-1", models=("asi1",), scopes=("api", "x"))
    principal = await ring.check(f"Bearer {text}")
    assert (principal.key_id, principal.owner, principal.name) == (record.id, "team-1", "lab")
    assert (principal.plan, principal.models, principal.scopes) == ("free", ("asi1",), ("api", "x"))


@pytest.mark.req("HDR-02")
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
async def test_the_scheme_word_counts_in_any_case(ring: KeyRing, scheme: str) -> None:
    text, record = await ring.create("lab")
    assert (await ring.check(f"{scheme} {text}")).key_id == record.id
    assert (await ring.check(f" {scheme}   {text} ")).key_id == record.id


@pytest.mark.req("HDR-01")
@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "bearer   "])
async def test_no_key_is_refused_with_the_way_to_send_one(ring: KeyRing, header: str | None) -> None:
    assert "Authorization: Bearer KEY" in await refusal(ring, header)


@pytest.mark.req("HDR-01")
@pytest.mark.parametrize("header", ["Basic dXNlcjpwYXNz", "Token abc", "convene_x", "Bearerconvene_x"])
async def test_another_scheme_is_refused(ring: KeyRing, keys: CountedKeys, header: str) -> None:
    assert "must be: Bearer KEY" in await refusal(ring, header)
    assert keys.lookups == 0


async def test_a_malformed_key_is_refused_without_asking_the_store(ring: KeyRing, keys: CountedKeys) -> None:
    text, _ = await ring.create("lab")
    for wrong in (text[:-1] + ("a" if text[-1] != "a" else "b"), "sk-proj-12345", "\ud800", "é"):
        assert "mistyped" in await refusal(ring, f"Bearer {wrong}")
        with pytest.raises(Unauthorized):
            await ring.look_up(f"Bearer {wrong}")
    assert keys.lookups == 0


async def test_a_well_formed_key_that_nobody_made_is_unknown(ring: KeyRing, clock: MovedClock) -> None:
    assert "not known" in await refusal(ring, f"Bearer {form_key('a' * 12, clock)}")


async def test_a_known_id_with_another_secret_is_as_unknown_as_any(ring: KeyRing, clock: MovedClock) -> None:
    _, record = await ring.create("lab")
    forged = await refusal(ring, f"Bearer {form_key(record.id, clock)}")
    assert forged == await refusal(ring, f"Bearer {form_key('a' * 12, clock)}")


async def test_a_refusal_never_repeats_the_key(ring: KeyRing, clock: MovedClock) -> None:
    text = form_key("a" * 12, clock)
    for wrong in (text, text[:-1], "sk-secret-of-another-service"):
        message = await refusal(ring, f"Bearer {wrong}")
        assert wrong not in message
        assert "aaaaaaaaaaaa" not in message


async def test_a_key_ends_at_its_expiry_also_when_remembered(ring: KeyRing, clock: MovedClock) -> None:
    text, _ = await ring.create("lab", expires_at=clock.at + 60)
    await ring.check(f"Bearer {text}")
    clock.at += 60
    assert "expired" in await refusal(ring, f"Bearer {text}")
    with pytest.raises(Unauthorized, match="expired"):
        await ring.look_up(f"Bearer {text}")


# What is remembered.


async def test_a_key_is_looked_up_once(ring: KeyRing, keys: CountedKeys) -> None:
    text, _ = await ring.create("lab")
    assert ring.admit(f"Bearer {text}") is None
    first = await ring.check(f"Bearer {text}")
    assert ring.admit(f"bearer {text}") == first
    assert keys.lookups == 1


async def test_a_refusal_spares_the_store_for_a_moment_and_no_longer(
    ring: KeyRing, keys: CountedKeys, clock: MovedClock
) -> None:
    header = f"Bearer {form_key('a' * 12, clock)}"
    for _ in range(10):
        await refusal(ring, header)
    assert keys.lookups == 1
    clock.at += REFUSAL_S
    await refusal(ring, header)
    assert keys.lookups == 2


async def test_a_key_made_by_another_process_works_within_a_quarter_second_of_being_refused(
    keys: CountedKeys, clock: MovedClock
) -> None:
    here, there = KeyRing(keys, clock), KeyRing(MemoryKeys(), clock)
    text, record = await there.create("made elsewhere")
    assert "not known" in await refusal(here, f"Bearer {text}")
    await keys.add(record)
    assert REFUSAL_S <= 0.25
    clock.at += REFUSAL_S
    assert (await here.check(f"Bearer {text}")).name == "made elsewhere"


async def test_remembered_refusals_have_a_limit(
    ring: KeyRing, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REFUSALS_MAX", 3)
    for _ in range(10):
        await refusal(ring, f"Bearer {form_key('a' * 12, clock)}")
    assert len(ring._refused) <= 3


async def test_no_text_of_a_key_is_kept_in_memory_or_store(ring: KeyRing) -> None:
    text, record = await ring.create("lab")
    await ring.check(f"Bearer {text}")
    assert text[-38:-6] not in repr((ring._known, ring._refused, record))
    assert record.last4 == text[-4:]
    assert record.digest == hashlib.sha256(text.encode()).digest()


# Revocation and rotation.


async def test_a_revoked_key_is_refused_at_once_here(ring: KeyRing) -> None:
    text, record = await ring.create("lab")
    await ring.check(f"Bearer {text}")
    revoked = await ring.revoke(record.id)
    assert revoked.revoked_at is not None
    assert "revoked" in await refusal(ring, f"Bearer {text}")


async def test_a_revoked_key_stays_revoked_when_the_wall_clock_steps_back(ring: KeyRing, clock: MovedClock) -> None:
    text, record = await ring.create("lab")
    await ring.revoke(record.id)
    clock.at -= 3600
    assert "revoked" in await refusal(ring, f"Bearer {text}")


async def test_a_revocation_by_another_process_counts_after_one_poll(keys: CountedKeys, clock: MovedClock) -> None:
    here, there = KeyRing(keys, clock), KeyRing(keys, clock)
    text, record = await there.create("lab")
    await here.poll()
    await here.check(f"Bearer {text}")
    await there.revoke(record.id)
    await here.poll()
    assert "revoked" in await refusal(here, f"Bearer {text}")
    assert module.POLL_S <= 0.5


async def test_a_change_before_the_first_poll_is_not_missed(keys: CountedKeys, clock: MovedClock) -> None:
    here, there = KeyRing(keys, clock), KeyRing(keys, clock)
    text, record = await there.create("lab")
    await here.check(f"Bearer {text}")
    await there.revoke(record.id)
    await here.poll()
    assert "revoked" in await refusal(here, f"Bearer {text}")


async def test_what_was_read_before_a_revocation_is_not_remembered_after_it(
    keys: CountedKeys, clock: MovedClock
) -> None:
    here, there = KeyRing(keys, clock), KeyRing(keys, clock)
    text, record = await there.create("lab")
    await here.poll()
    keys.go_on.clear()
    look_up = asyncio.create_task(here.check(f"Bearer {text}"))
    await asyncio.wait_for(keys.reading.wait(), 60)
    await keys.revoke(record.id, clock.at)
    await here.poll()
    keys.go_on.set()
    assert (await look_up).key_id == record.id
    assert "revoked" in await refusal(here, f"Bearer {text}")


async def test_a_poll_without_a_change_keeps_what_is_remembered(ring: KeyRing, keys: CountedKeys) -> None:
    text, _ = await ring.create("lab")
    await ring.poll()
    await ring.check(f"Bearer {text}")
    await ring.poll()
    await ring.check(f"Bearer {text}")
    assert keys.lookups == 1


async def test_a_store_that_cannot_be_asked_is_not_taken_for_unchanged(ring: KeyRing, keys: CountedKeys) -> None:
    text, _ = await ring.create("lab")
    await ring.poll()
    await ring.check(f"Bearer {text}")
    keys.broken = True
    await ring.poll()
    assert ring.admit(f"Bearer {text}") is None


async def test_watching_polls_until_cancelled(
    keys: CountedKeys, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.001)
    here = KeyRing(keys, clock)
    text, record = await here.create("lab")
    watching = asyncio.create_task(here.watch())
    await here.check(f"Bearer {text}")
    await keys.revoke(record.id, clock.at)
    keys.polled.clear()
    await asyncio.wait_for(keys.polled.wait(), 60)
    assert "revoked" in await refusal(here, f"Bearer {text}")
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_rotation_keeps_the_id_and_ends_the_old_secret(ring: KeyRing) -> None:
    old, before = await ring.create("lab", "free", owner="team-1")
    await ring.check(f"Bearer {old}")
    new, after = await ring.rotate(before.id)
    assert after == msgspec.structs.replace(before, digest=after.digest, last4=new[-4:])
    assert (await ring.check(f"Bearer {new}")).key_id == before.id
    assert "not known" in await refusal(ring, f"Bearer {old}")


async def test_a_revoked_key_is_not_rotated(ring: KeyRing) -> None:
    _, record = await ring.create("lab")
    await ring.revoke(record.id)
    with pytest.raises(Conflict, match="revoked"):
        await ring.rotate(record.id)


async def test_an_unknown_id_is_neither_rotated_nor_revoked(ring: KeyRing) -> None:
    with pytest.raises(NotFound, match="keys list"):
        await ring.rotate("nobody")
    with pytest.raises(NotFound, match="keys list"):
        await ring.revoke("nobody")


# Making keys.


async def test_a_key_without_an_owner_owns_itself(ring: KeyRing) -> None:
    _, one = await ring.create("one")
    _, two = await ring.create("two")
    assert one.owner == one.id
    assert two.owner != one.owner


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb", "a\x1b[31m"])
async def test_a_name_is_short_and_printable(ring: KeyRing, name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await ring.create(name)
    assert caught.value.param == "name"


async def test_an_expiry_lies_in_the_future(ring: KeyRing, clock: MovedClock) -> None:
    for at in (clock.at, clock.at - 1, float("nan")):
        with pytest.raises(BadRequest) as caught:
            await ring.create("lab", expires_at=at)
        assert caught.value.param == "expires_at"


async def test_a_key_for_no_model_at_all_is_refused(ring: KeyRing) -> None:
    with pytest.raises(BadRequest) as caught:
        await ring.create("lab", models=())
    assert caught.value.param == "models"


async def test_the_first_key_is_made_once(ring: KeyRing) -> None:
    text = await ensure_first_key(ring)
    assert text is not None
    principal = await ring.check(f"Bearer {text}")
    assert (principal.name, principal.plan) == ("first", "owner")
    assert await ensure_first_key(ring) is None
    await ring.revoke(principal.key_id)
    assert await ensure_first_key(ring) is None


def test_the_local_principal_is_fixed_and_a_key_ring_is_a_gatekeeper(ring: KeyRing) -> None:
    gate: Gatekeeper = ring
    assert gate is ring
    assert (LOCAL.key_id, LOCAL.owner, LOCAL.plan, LOCAL.models) == ("local", "local", "owner", None)


async def test_servers_that_start_at_once_on_one_empty_store_make_one_first_key() -> None:
    """Each looks before any has written: the store decides, not the look."""
    keys = MemoryKeys()
    rings = [KeyRing(keys, SystemClock()) for _ in range(5)]
    texts = [await ring.create_first("first") for ring in rings]
    assert [text is not None for text in texts] == [True, False, False, False, False]
    assert len(await keys.list_all()) == 1


async def test_a_first_key_has_the_scopes_asked_for_and_opens_the_door() -> None:
    ring = KeyRing(MemoryKeys(), SystemClock())
    text = await ring.create_first("first", scopes=("api", "admin"))
    principal = await ring.check(f"Bearer {text}")
    assert principal.scopes == ("api", "admin")
    assert principal.owner == principal.key_id


# Those behind a key.

BOB = User(id="usr_bob", name="Bob", email="bob@x.org", created_at=1.0)
LAB = Team(id="team_lab", name="Lab", created_at=1.0)
FIVE, SIX, SEVEN = (Allowance(requests_per_minute=number) for number in (5, 6, 7))


@pytest.mark.req("KEY-04")
@pytest.mark.parametrize(
    ("key", "user", "team", "effective"),
    [
        ("pro", "free", "owner", "pro"),
        ("", "free", "owner", "free"),
        ("", "", "owner", "owner"),
        ("", "", "", "basic"),
    ],
)
async def test_the_plan_is_the_keys_else_the_users_else_the_teams_else_the_default(
    clock: MovedClock, key: str, user: str, team: str, effective: str
) -> None:
    store = MemoryStore()
    await store.accounts.add_user(msgspec.structs.replace(BOB, plan=user))
    await store.accounts.add_team(msgspec.structs.replace(LAB, plan=team))
    await store.accounts.put_member(Member(team_id="team_lab", user_id="usr_bob"))
    ring = KeyRing(store.keys, clock, store.accounts, "basic")
    text, _ = await ring.issue(KeyDraft(name="k", plan=key, user_id="usr_bob", team_id="team_lab"))
    assert (await ring.check(f"Bearer {text}")).plan == effective


async def test_the_limits_of_key_user_and_team_come_with_the_principal_and_follow_their_changes(
    clock: MovedClock,
) -> None:
    store = MemoryStore()
    await store.accounts.add_user(msgspec.structs.replace(BOB, limits=FIVE))
    await store.accounts.add_team(msgspec.structs.replace(LAB, limits=SIX))
    await store.accounts.put_member(Member(team_id="team_lab", user_id="usr_bob"))
    ring = KeyRing(store.keys, clock, store.accounts)
    await ring.poll()
    draft = KeyDraft(name="k", user_id="usr_bob", team_id="team_lab", limits=SEVEN, model_limits={"asi1": FIVE})
    text, _ = await ring.issue(draft)
    who = await ring.check(f"Bearer {text}")
    assert (who.limits, who.user_limits, who.team_limits, who.model_limits) == (SEVEN, FIVE, SIX, {"asi1": FIVE})
    await store.accounts.change_user("usr_bob", UserChange(limits=None))
    await store.accounts.change_team("team_lab", TeamChange(limits=SEVEN))
    await ring.poll()
    who = await ring.check(f"Bearer {text}")
    assert (who.user_limits, who.team_limits) == (None, SEVEN)


async def test_a_key_of_nobody_costs_no_look_up_of_accounts(clock: MovedClock) -> None:
    store = MemoryStore()
    ring = KeyRing(store.keys, clock, store.accounts)
    text, _ = await ring.create("lab")
    store.accounts.close()  # asking would be a store fault
    assert (await ring.check(f"Bearer {text}")).user_limits is None


async def test_a_wrong_secret_costs_no_look_up_of_accounts(clock: MovedClock) -> None:
    store = MemoryStore()
    await store.accounts.add_user(BOB)
    ring = KeyRing(store.keys, clock, store.accounts)
    _, record = await ring.issue(KeyDraft(name="k", user_id="usr_bob"))
    store.accounts.close()
    assert "not known" in await refusal(ring, f"Bearer {form_key(record.id, clock)}")


@pytest.mark.parametrize("draft", [KeyDraft(name="k", user_id="usr_9"), KeyDraft(name="k", team_id="team_9")])
async def test_a_key_whose_user_or_team_is_missing_is_refused(clock: MovedClock, draft: KeyDraft) -> None:
    store = MemoryStore()
    ring = KeyRing(store.keys, clock, store.accounts)
    text, _ = await ring.issue(draft)
    assert "not there" in await refusal(ring, f"Bearer {text}")


async def test_without_accounts_a_users_key_is_refused(ring: KeyRing) -> None:
    text, _ = await ring.issue(KeyDraft(name="k", user_id="usr_bob"))
    assert "not there" in await refusal(ring, f"Bearer {text}")


async def test_a_key_of_a_team_alone_needs_no_member(clock: MovedClock) -> None:
    store = MemoryStore()
    await store.accounts.add_team(LAB)
    ring = KeyRing(store.keys, clock, store.accounts)
    text, record = await ring.issue(KeyDraft(name="k", team_id="team_lab"))
    assert record.owner == "team_lab"
    assert (await ring.check(f"Bearer {text}")).team_id == "team_lab"


async def test_a_change_of_a_key_counts_at_once_here(ring: KeyRing) -> None:
    text, record = await ring.create("lab")
    await ring.check(f"Bearer {text}")
    await ring.change(record.id, KeyChange(models=("asi1",), limits=FIVE))
    who = await ring.check(f"Bearer {text}")
    assert (who.models, who.limits) == (("asi1",), FIVE)
    with pytest.raises(NotFound):
        await ring.change("nobody", KeyChange(name="x"))
    for wrong in (KeyChange(name=" "), KeyChange(models=()), KeyChange(expires_at=1.0)):
        with pytest.raises(BadRequest):
            await ring.change(record.id, wrong)


async def test_the_holder_of_a_key_is_known_by_its_id_while_the_key_is_valid(ring: KeyRing, clock: MovedClock) -> None:
    text, record = await ring.create("lab", expires_at=clock.at + 10)
    assert await ring.holder(record.id) == await ring.check(f"Bearer {text}")
    assert await ring.holder("never made") is None
    clock.at += 10
    assert await ring.holder(record.id) is None, "expired"
    _, other = await ring.create("other")
    await ring.revoke(other.id)
    assert await ring.holder(other.id) is None, "revoked"


async def test_a_key_whose_user_is_disabled_has_no_holder(clock: MovedClock) -> None:
    store = MemoryStore()
    ring = KeyRing(store.keys, clock, store.accounts)
    await store.accounts.add_user(User(id="u", name="U", email="u@x.test", role="member", created_at=1.0))
    _, record = await ring.issue(KeyDraft(name="k", user_id="u"))
    assert await ring.holder(record.id) is not None
    await store.accounts.change_user("u", UserChange(disabled_at=2.0))
    assert await ring.holder(record.id) is None


# Whether what was said of a key still holds.


async def test_a_principal_holds_until_the_store_changes(ring: KeyRing) -> None:
    text, record = await ring.create("one")
    who = await ring.check(f"Bearer {text}")
    assert ring.still(who)
    await ring.revoke(record.id)
    assert not ring.still(who)


async def test_a_principal_holds_until_its_key_expires(ring: KeyRing, clock: MovedClock) -> None:
    text, _ = await ring.create("one", expires_at=clock.at + 10)
    who = await ring.check(f"Bearer {text}")
    assert ring.still(who)
    clock.at += 10
    assert not ring.still(who)


async def test_only_the_very_principal_that_was_given_holds(ring: KeyRing) -> None:
    text, _ = await ring.create("one")
    who = await ring.check(f"Bearer {text}")
    assert not ring.still(msgspec.structs.replace(who))
    ring._forget()
    assert not ring.still(who), "another process may have changed the store"
    assert await ring.check(f"Bearer {text}") is not who
