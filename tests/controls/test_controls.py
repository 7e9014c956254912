"""Negative controls: every test that SECURITY.md names is shown to fail when the bug it guards against is put back.

A control copies the checkout, makes one replacement in it, and runs the test there; it must fail. The package is installed
editable, through a `.pth`, which PYTHONPATH goes before. An engine gets a listed environment only, so in the copy PYTHONPATH is
on that list. That the copy is what runs, and that the tests pass in it unchanged, is a control too (the first two tests).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.controls.environment import inherited

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("src", "tests", "requirements", "pyproject.toml")
ENGINES_LIST = ("src/rootlink/programs/settings.py", '["PATH", "HOME",', '["PATH", "PYTHONPATH", "HOME",')
DOORS_LIST = ("src/rootlink/provisioner/launch/behind.py", '("PATH", "HOME",', '("PATH", "PYTHONPATH", "HOME",')
ZYGOTE = "src/rootlink/engine/functions/processes.py"
PATIENCE = 120  # seconds for one control
HUNG = 15  # seconds after which a test that says nothing of its time has failed


class Control(NamedTuple):
    """`old` stands exactly once in `file`. `bug` is what `new` makes of it."""

    test: str
    file: str
    old: str
    new: str
    bug: str


CONTROLS = [
    Control(
        "tests/e2e/test_canary.py::test_a_secret_is_found_nowhere_but_in_its_child",
        "src/rootlink/redaction.py",
        'return "".join([*pieces, text[end:]])',
        "return text",
        "Nothing takes known secrets out of logs, runs and errors.",
    ),
    Control(
        "tests/mounts/test_stdio.py::test_a_child_sees_its_own_environment_and_nothing_else",
        "src/rootlink/engine/mounts/spec.py",
        "env={name: put(text) for name, text in spec.env.items()},",
        "env={**values.secrets, **{name: put(text) for name, text in spec.env.items()}},",
        "A mount's child gets every secret of the project.",
    ),
    Control(
        "tests/cli/test_connect.py::test_a_secret_in_argv_is_refused_and_not_repeated",
        "src/rootlink/cli/arguments.py",
        'if value not in ("", "-"):',
        "if not name:",
        "A secret's value is taken from argv.",
    ),
    Control(
        "tests/cli/test_connect.py::test_a_person_is_asked_for_what_is_missing_with_its_explanation_and_without_echo",
        "src/rootlink/cli/arguments.py",
        'getpass(f"{label}: ", stream=sys.stderr)',
        "typer.prompt(label, err=True)",
        "A secret is asked for like any other value, with echo.",
    ),
    Control(
        "tests/store/test_secrets.py::test_projects_do_not_see_each_others_secrets",
        "src/rootlink/store/secrets.py",
        ".where(_TABLE.c.project == project, mine)",
        ".where(mine)",
        "A secret is looked up by id or name in all projects.",
    ),
    Control(
        "tests/store/test_connections.py::test_undo_leaves_everything_as_it_was_to_the_byte",
        "src/rootlink/store/connections.py",
        "transaction.execute(update(_SECRETS).where(secret).values(before))",
        "transaction.execute(delete(_SECRETS).where(secret))",
        "Undoing a connect deletes the secret it had replaced.",
    ),
    Control(
        "tests/provisioner/test_app.py::test_killed_in_the_middle_of_an_install",
        "src/rootlink/provisioner/reconcile.py",
        'if row.state == "connecting":',
        'if row.state == "interrupted":',
        "A provisioner that starts again leaves half a connect as it is.",
    ),
    Control(
        "tests/e2e/test_recovery.py::test_a_kill_in_the_middle_of_a_connect_leaves_all_of_it_or_nothing",
        "src/rootlink/provisioner/reconcile.py",
        'if row.state == "connecting":',
        'if row.state == "interrupted":',
        "A provisioner that starts again leaves half a connect as it is.",
    ),
    Control(
        "tests/functions/test_fetch.py::test_the_real_way_out_refuses_every_other_host_and_every_hop_to_it",
        "src/rootlink/egress/policy.py",
        "is not in this project's outbound allowlist\")",
        'is not allowed")',
        "A refusal does not say the contract's words.",
    ),
    Control(
        "tests/outbound/test_bypass_list.py::test_no_packet_leaves_for",
        "src/rootlink/egress/hosts.py",
        'host.endswith("." + self.host)',
        "host.endswith(self.host)",
        "A rule covers every name that ends alike.",
    ),
    Control(
        "tests/outbound/test_outbound.py::test_a_redirect_is_refused",
        "src/rootlink/engine/outbound.py",
        "hop = replace(onward[0], target=self._allowed(onward[1]))",
        "hop = replace(onward[0], target=onward[1])",
        "Only the first hop is decided, a redirect is followed anywhere.",
    ),
    Control(
        "tests/outbound/test_bypass_list.py::test_no_packet_leaves_for_an_allowed_name_that_leads_to",
        "src/rootlink/egress/addresses.py",
        "return next((words for block, words in _TABLE_V4 if parsed in block), None)",
        "return None",
        "Every IPv4 address is taken for one of the world's.",
    ),
    Control(
        "tests/outbound/test_bypass_list.py::test_a_name_is_resolved_once_and_exactly_that_address_is_dialled",
        "src/rootlink/engine/outbound.py",
        "found = await self._lookup(host, port)",
        "found = await self._lookup(host, port) and await self._lookup(host, port)",
        "A name is resolved a second time between the check and the dial.",
    ),
    Control(
        "tests/outbound/test_outbound.py::test_a_connection_reaches_its_own_hosts_and_no_other_allowed_one",
        "src/rootlink/egress/policy.py",
        "        if scope is not None and not _covering(scope, host):",
        "        if not host:",
        "A connection reaches every host of the project's allowlist.",
    ),
    Control(
        "tests/outbound/test_outbound.py::test_an_open_stream_is_cut_when_its_host_is_removed",
        "src/rootlink/engine/outbound.py",
        "exchange.recheck(self._policy)",
        "pass",
        "A new policy is for new requests only.",
    ),
    Control(
        "tests/e2e/test_bad_input.py::test_a_key_of_one_project_is_nothing_to_another",
        "src/rootlink/gateway/engines.py",
        "engine = self._known.get(project)\n        if engine is not None:\n            return engine",
        "engine = next(iter(self._known.values()), None)\n        if engine is not None:\n            return engine",
        "Whoever has a key gets the first engine there is.",
    ),
    Control(
        "tests/e2e/test_bad_input.py::test_a_revoked_key_is_refused_at_once",
        "src/rootlink/store/keys.py",
        " or row.revoked_at is not None:",
        ":",
        "A revoked key is found like any other.",
    ),
    Control(
        "tests/gateway/test_auth.py::test_a_wrong_key_is_told_the_same_whatever_is_wrong_with_it",
        "src/rootlink/gateway/auth.py",
        'raise Unauthorized("This project key is not valid")',
        'raise Unauthorized("This project key is not known" if match else "This is no project key")',
        "The answer tells a malformed key from an unknown one.",
    ),
    Control(
        "tests/e2e/test_bad_input.py::test_a_wrong_credential_is_refused_the_same_way_everywhere",
        "src/rootlink/gateway/auth.py",
        'raise Unauthorized("This project key is not valid")',
        'raise Forbidden("This project key is not valid")',
        "A wrong key gets another status than no key.",
    ),
    Control(
        "tests/e2e/test_bad_input.py::test_a_key_without_manage_can_use_but_not_install",
        "src/rootlink/gateway/relayed.py",
        '",".join(self.key.scopes).encode()',
        'b"use,manage"',
        "The engine is told that every key may do everything.",
    ),
    Control(
        "tests/e2e/test_clients.py::test_a_session_belongs_to_the_key_that_opened_it",
        "src/rootlink/engine/eras/session.py",
        "if (session.principal, session.ws) != (caller.principal, caller.ws):",
        "if session.ws != caller.ws:",
        "Whoever knows a session's id has the session.",
    ),
    Control(
        "tests/gateway/test_malformed_requests.py::test_a_malformed_request_is_refused_once_with_the_envelope",
        "src/rootlink/gateway/guard.py",
        "_check_target(scope)",
        "pass",
        "A path with dots or an encoded slash passes the guard.",
    ),
    Control(
        "tests/gateway/test_malformed_requests.py::test_a_head_that_does_not_end_is_refused_in_time",
        "src/rootlink/gateway/protocol.py",
        "self._timer = self.loop.call_later(secs, act)",
        "self._timer = None",
        "A connection may take for ever over its head.",
    ),
    Control(
        "tests/gateway/test_malformed_requests.py::test_a_body_that_does_not_come_is_refused_in_time",
        "src/rootlink/gateway/guard.py",
        "async with asyncio.timeout(within):",
        "async with asyncio.timeout(None):",
        "A body is waited for without end.",
    ),
    Control(
        "tests/gateway/test_malformed_requests.py::test_chunks_without_end_are_refused_at_the_cap",
        "src/rootlink/gateway/guard.py",
        "if size > most:",
        "if size > most << 20:",
        "A body may be as large as it likes.",
    ),
    Control(
        "tests/gateway/test_crowd.py::test_half_open_connections_do_not_use_up_the_places_even_while_they_are_young",
        "src/rootlink/gateway/crowd.py",
        "if len(self._all) >= self._most and not self._make_place():",
        "if len(self._all) >= self._most:",
        "Whoever opens connections and says nothing keeps everybody out.",
    ),
    Control(
        "tests/e2e/test_recovery.py::test_everything_killed_at_once_leaves_nothing_and_comes_back",
        "src/rootlink/programs/up.py",
        "asked += _end_up(settings)",
        "return 1",
        "`down` says that it is done, and has ended nothing.",
    ),
    Control(
        "tests/cli/test_errors.py::test_the_local_admin_token_is_not_sent_to_another_url",
        "src/rootlink/cli/session.py",
        "return self.running if self.running is not None and origin(self.running.api) == self.base else None",
        "return self.running",
        "Every URL is taken for the local instance's.",
    ),
    Control(
        "tests/cli/test_commands.py::test_the_engine_never_sees_the_admin_token",
        "src/rootlink/cli/session.py",
        "return Client(self.base, kept or self._make_key(), renew=self._make_key if kept else None)",
        "return Client(self.base, self.token)",
        "The command line calls the engine with the admin token.",
    ),
    Control(
        "tests/cli/test_commands.py::test_a_tools_description_cannot_write_to_the_terminal",
        "src/rootlink/cli/screen.py",
        'return _UNSEEN.sub("", str(text))',
        "return str(text)",
        "What a server wrote is printed as it is.",
    ),
    Control(
        "tests/repository/test_files.py::test_a_lock_pins_every_package_with_hashes_and_holds_no_host",
        "requirements/run.txt",
        "\nanyio==",
        "\nanyio>=",
        "A lock leaves the version of a package open.",
    ),
    Control(
        "tests/e2e/test_gate_hostile.py::test_nothing_gets_out_and_what_was_refused_is_on_record",
        "src/rootlink/egress/addresses.py",
        "return next((words for block, words in _TABLE_V4 if parsed in block), None)",
        "return None",
        "The gate has no table of addresses: an allowed name or address may be anybody's.",
    ),
    Control(
        "tests/door/test_seccomp.py::test_only_plain_sockets_can_be_made",
        "src/rootlink/door/seccomp.py",
        "*_only(architecture.socket, _sockets()),",
        "",
        "A door without the filter's rule about sockets.",
    ),
    Control(
        "tests/door/test_seccomp.py::test_every_refused_call_answers_eperm",
        "src/rootlink/door/seccomp.py",
        "    for number in architecture.refused.values():",
        "    for number in ():",
        "A door without the filter's list of calls.",
    ),
    Control(
        "tests/door/test_seccomp.py::test_namespaces_can_t_be_made_by_unshare_or_clone",
        "src/rootlink/door/seccomp.py",
        "(_ANY_BIT, 0, 1, _NAMESPACES), _fail(errno.EPERM), _PASS]),",
        "(_ANY_BIT, 0, 1, 0), _fail(errno.EPERM), _PASS]),",
        "A door in which clone may make namespaces.",
    ),
    Control(
        "tests/door/test_view.py::test_only_granted_folders_are_there_readable_or_writable_and_no_other_command_s",
        "src/rootlink/door/view.py",
        """argv += ["--perms", "1777" if at in ("/tmp", "/dev/shm") else "0755", "--size", str(size), "--tmpfs", at]""",
        """argv += ["--bind", at, at] if not first else ["--size", str(size), "--tmpfs", at]""",
        "A door shows the machine's /tmp, /run and homes.",
    ),
    Control(
        "tests/door/test_view.py::test_a_link_that_flips_never_shows_what_is_outside",
        "src/rootlink/door/paths.py",
        """            if not self._may(path, actual, write=write):
                raise Refused("forbidden", _words(path, actual, write=write))
""",
        "",
        "What is shown is judged by its name, not by where it leads.",
    ),
    Control(
        "tests/door/test_view.py::test_host_processes_can_t_be_seen_or_signalled",
        "src/rootlink/door/view.py",
        '*("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev"),',
        '*("--ro-bind", "/proc", "/proc", "--dev", "/dev"),',
        "A door shows the machine's processes.",
    ),
    Control(
        "tests/door/test_view.py::test_nothing_is_inherited_but_standard_input_output_and_error",
        "src/rootlink/door/spawn.py",
        "    for fd in start.keep:",
        "    for fd in [*start.keep, os.open('/dev/null', os.O_RDONLY)]:",
        "A door's command inherits what the keeper has open.",
    ),
    Control(
        "tests/door/test_life.py::test_kill_ends_grandchildren_in_sessions_of_their_own",
        "src/rootlink/door/view.py",
        '"--unshare-user", "--unshare-pid", ',
        '"--unshare-user", *(["--unshare-pid"] if first else []), ',
        "A mount's door has no pid namespace of its own.",
    ),
    Control(
        "tests/gate/test_gate.py::test_an_engine_cannot_widen_what_its_project_may",
        "src/rootlink/egress/policy.py",
        "        if not _covering(self.allow, host):\n",
        "        if not _covering(self.allow if scope is None else scope, host):\n",
        "A door's own hosts open what its project does not allow.",
    ),
    Control(
        "tests/gate/test_gate.py::test_a_private_address_is_refused_though_its_rule_is_there",
        "src/rootlink/egress/addresses.py",
        "return next((words for block, words in _TABLE_V4 if parsed in block), None)",
        "return None",
        "The gate has no table of addresses.",
    ),
    Control(
        "tests/gate/test_gate.py::test_any_other_name_does_not_exist_and_is_recorded_once_for_both_kinds_of_address",
        "src/rootlink/gate/door.py",
        "decision = self.policy.decide_name(question.name, self._scope)",
        "decision = Decision('allowed', 'in_allowlist', question.name, 0)",
        "Every name has an address.",
    ),
    Control(
        "tests/gate/test_bypass_forms.py::test_nothing_forbidden_arrives_for",
        "src/rootlink/gate/http1.py",
        "    if asked != host or asked_port not in (None, port):",
        "    if asked_port not in (None, port):",
        "A request's Host may be any.",
    ),
    Control(
        "tests/gate/test_gate.py::test_a_door_for_packages_reaches_registries_alone",
        "src/rootlink/gate/door.py",
        "return self._ground.packages if self._packages else self._ground.policy",
        "return self._ground.packages",
        "Every door may reach the registries.",
    ),
    Control(
        "tests/e2e/test_gate_projects.py::test_the_other_s_files_and_state_are_not_there",
        "src/rootlink/door/view.py",
        """argv += ["--perms", "1777" if at in ("/tmp", "/dev/shm") else "0755", "--size", str(size), "--tmpfs", at]""",
        """argv += ["--bind", at, at] if not first else ["--size", str(size), "--tmpfs", at]""",
        "A door shows the machine's /tmp, /run and homes.",
    ),
    Control(
        "tests/e2e/test_gate_projects.py::test_the_other_s_engine_and_sockets_are_not_there",
        "src/rootlink/door/view.py",
        """argv += ["--perms", "1777" if at in ("/tmp", "/dev/shm") else "0755", "--size", str(size), "--tmpfs", at]""",
        """argv += ["--bind", at, at] if not first else ["--size", str(size), "--tmpfs", at]""",
        "A door shows the machine's /tmp, /run and homes.",
    ),
    Control(
        "tests/e2e/test_gate_live.py::test_a_host_taken_off_the_list_is_cut_and_refused_and_the_others_go_on",
        "src/rootlink/gate/door.py",
        "decision = self._still(tunnel) if tunnel.decided else None",
        "decision = None",
        "A change of the list is for new connections alone.",
    ),
    Control(
        "tests/mounts/test_refusals.py::test_stdio_mounts_that_are_refused_fail_at_once_with_the_reason_and_are_not_tried_again",
        "src/rootlink/engine/mounts/dial.py",
        "    if ground.no_stdio:",
        "    if not ground:",
        "Where there are no doors, stdio servers run without.",
    ),
    Control(
        "tests/engine/test_parked.py::test_a_state_is_worth_nothing_with",
        "src/rootlink/engine/tokens.py",
        "for part in (kind, *bound, rest):",
        "for part in (kind, rest):",
        "A request state is bound to nobody and nothing.",
    ),
    Control(
        "tests/engine/test_bounds.py::test_a_parked_call_that_is_resumed_twice_at_once_goes_on_once",
        "src/rootlink/engine/eras/parked.py",
        "place = self._places.pop(self._keys.pop(work))",
        "place = self._places[self._keys[work]]",
        "A parked call stays in its place when it is taken up.",
    ),
    Control(
        "tests/mounts/test_strangers.py::test_what_a_server_says_of_a_call_that_was_cancelled_reaches_no_other_client",
        "src/rootlink/engine/mounts/exchange.py",
        "and self._lingering and self._lingers(found.call.client.key):",
        "and self._lingering and not found.call.client.key:",
        "Late words of a cancelled call are taken for the one call that is left.",
    ),
    Control(
        "tests/mounts/test_questions.py::test_what_the_client_did_not_declare_it_is_not_asked",
        "src/rootlink/engine/mounts/exchange.py",
        " or not allowed(self.owner, method, params)",
        "",
        "Whatever a server asks is asked.",
    ),
    Control(
        "tests/engine/test_catalogue_hostile.py::test_an_alias_leads_to_the_mount_it_names_whoever_lists_it",
        "src/rootlink/engine/catalogue.py",
        " and aliases.read(uri) is None",
        "",
        "A server may list what stands for another's resources.",
    ),
    Control(
        "tests/engine/test_bounds.py::test_sessions_that_say_much_go_before_all_together_are_too_much",
        "src/rootlink/engine/eras/session.py",
        "if self._said > MAX_SAID:",
        "if False:",
        "Sessions are kept whatever their clients say of themselves.",
    ),
    Control(
        "tests/engine/test_checks.py::test_a_success_whose_body_says_no_is_a_failure",
        "src/rootlink/engine/checks/http.py",
        "raise UpstreamFailed(said) if _elsewhere(status) else Invalid(said)",
        "return Found()",
        "What a service says against a key is taken for a yes.",
    ),
    Control(
        "tests/engine/test_checks.py::test_a_check_reaches_no_more_than_its_connection",
        "src/rootlink/engine/checks/checks.py",
        "wants.egress if wants is not None else []",
        "None",
        "A check may ask whatever the project may.",
    ),
    Control(
        "tests/engine/test_checks.py::test_a_value_cannot_break_out_of_where_it_is_put",
        "src/rootlink/engine/checks/filling.py",
        'return quote(value.encode("utf-8", "replace"), safe="")',
        "return value",
        "A value is put into a URL as it is.",
    ),
    Control(
        "tests/mounts/test_failures.py::test_a_client_is_told_no_known_secret_by_a_call_that_fails",
        "src/rootlink/engine/dispatch.py",
        "failures.cleaned(result, self._redact)",
        "result",
        "A failure passes as the server wrote it.",
    ),
    Control(
        "tests/catalog/test_rules.py::test_a_broken_rule_is_found",
        "src/rootlink/catalog/rules.py",
        "if argument.is_secret or any(variable.is_secret for variable in argument.variables.values()):",
        "if False:",
        "An entry may put a secret into its arguments.",
    ),
    Control(
        "tests/catalog/test_address.py::test_what_leads_to_no_place_or_several_is_refused_in_words_that_repeat_nothing",
        "src/rootlink/catalog/address.py",
        '_ELSEWHERE = {"host", "hostaddr", "port", "service", "servicefile"}',
        "_ELSEWHERE: set[str] = set()",
        "A connection string may name another host in its query.",
    ),
    Control(
        "tests/mounts/test_dial_files.py::test_a_link_that_a_server_left_there_is_replaced_and_not_followed",
        "src/rootlink/engine/mounts/dial.py",
        "draft.replace(folder / name)",
        "draft.unlink(); (folder / name).write_text(text)",
        "The file is written where a link leads.",
    ),
    Control(
        "tests/gateway/test_catalog.py::test_an_icon_opened_as_a_page_may_run_and_load_nothing",
        "src/rootlink/gateway/v1/catalog.py",
        "default-src 'none'; sandbox",
        "default-src *",
        "An icon opened as a page may do what pages do.",
    ),
    Control(
        "tests/gateway/test_connect_kinds.py::test_two_databases_have_each_their_own_key_and_host",
        "src/rootlink/gateway/connect.py",
        "replaces = brought or (wanted in used if name == entry.name else wanted in vault)",
        "replaces = brought",
        "Two connections of one kind share the secret's name.",
    ),
    Control(
        "tests/gateway/test_custom.py::test_a_secret_of_the_vault_is_not_a_strangers_for_naming_it",
        "src/rootlink/gateway/connect.py",
        "elif wanted in vault and not brought:",
        "elif wanted in vault:",
        "A pasted server's field is filled from the vault by its name.",
    ),
    Control(
        "tests/gateway/test_custom.py::test_hosts_are_those_that_were_named_and_tools_are_held_until_agreed_to",
        "src/rootlink/gateway/custom.py",
        "for host in hosts))",
        "for host in manifest.own.egress.hosts))",
        "The pasted text decides what is opened.",
    ),
    Control(
        "tests/e2e/test_tool_control.py::test_a_tool_that_changed_is_not_callable_in_any_way_until_it_is_approved",
        "src/rootlink/engine/tools/control.py",
        'return None if mark in (pin, self._kept.masked.get(tool["name"])) else CHANGED',
        "return None",
        "A changed definition is taken for the one that was agreed to.",
    ),
    Control(
        "tests/engine/test_tool_guard.py::test_a_tool_that_changes_while_its_call_waits_is_not_sent",
        "src/rootlink/engine/dispatch.py",
        "call=call, admit=self._admit)",
        "call=call)",
        "What waits is not looked at again.",
    ),
    Control(
        "tests/engine/test_tool_control.py::test_what_was_agreed_to_outlives_the_engine_and_what_can_t_be_read_holds_everything_back",
        "src/rootlink/engine/state.py",
        "return Kept(agreed=True, lost=True)",
        "return Kept()",
        "What can't be read is agreed to anew.",
    ),
    Control(
        "tests/engine/test_tool_connections.py::test_rules_are_in_force_before_anything_is_listed",
        "src/rootlink/engine/installer.py",
        "Kept(rules, agreed=bool(rules.pins))",
        "Kept()",
        "A connection's rules come after its tools.",
    ),
    Control(
        "tests/engine/test_tool_guard.py::test_anything_but_a_yes_sends_nothing_and_tells_the_model",
        "src/rootlink/engine/tools/guard.py",
        "if not said.yes:",
        "if said is None:",
        "Any answer is a yes.",
    ),
    Control(
        "tests/engine/test_tool_lint.py::test_poisoned_definitions_are_flagged",
        "src/rootlink/engine/tools/lint.py",
        "looks.unseen(text):",
        'looks.unseen(""):',
        "Nobody looks for characters that can't be seen.",
    ),
    Control(
        "tests/gateway/test_tools.py::test_a_definition_that_changed_since_it_was_seen_is_not_approved",
        "src/rootlink/gateway/v1/tools.py",
        "if decision.approve not in (None, tool.fingerprint):",
        "if False:",
        "What is there now is agreed to, whatever was seen.",
    ),
    Control(
        "tests/engine/oauth/test_sign_in.py::test_an_answer_of_another_issuer_is_refused_and_uses_the_sign_in_up",
        "src/rootlink/engine/oauth/flow.py",
        "if answer.iss != self.authority.issuer and (answer.iss is not None or self.authority.iss):",
        "if False:",
        "Nobody looks who an answer is from.",
    ),
    Control(
        "tests/engine/oauth/test_sign_in.py::test_no_token_is_seen_anywhere",
        "src/rootlink/engine/oauth/accounts.py",
        "secret, sealed.ciphertext, sealed.key_id)",
        "secret, written(grant).encode(), sealed.key_id)",
        "The engine keeps tokens as they are.",
    ),
    Control(
        "tests/engine/oauth/test_sign_in.py::test_no_page_but_a_plain_https_one_is_shown_to_a_person",
        "src/rootlink/engine/oauth/places.py",
        'if target.url.scheme != "https" and not local:',
        "if False:",
        "Whatever a server names is shown as a link.",
    ),
    Control(
        "tests/engine/oauth/test_sign_in.py::test_functions_and_other_mounts_never_have_a_grant",
        "src/rootlink/engine/app.py",
        "            secrets=given,",
        "            secrets=config.secrets,",
        "Tokens are secrets like any other to mounts.",
    ),
    Control(
        "tests/engine/oauth/test_sign_in.py::test_a_server_tried_at_another_place_is_not_shown_the_tokens",
        "src/rootlink/engine/oauth/accounts.py",
        "return account if account.spec.endpoint == spec.endpoint else self._made(ws, spec)",
        "return account",
        "A new address gets the old one's tokens.",
    ),
    Control(
        "tests/provisioner/test_grants.py::test_an_engine_can_write_over_no_secret_but_its_connections_grant",
        "src/rootlink/provisioner/grants.py",
        " or _wanted(row) != grant.secret",
        "",
        "An engine may name any secret to be written.",
    ),
    Control(
        "tests/gateway/test_oauth.py::test_what_is_malformed_does_not_reach_the_provisioner",
        "src/rootlink/gateway/oauth.py",
        "{22,200}",
        "*",
        "Any state is passed on.",
    ),
    Control(
        "tests/packages/test_gc.py::test_an_install_an_engine_started_from_stays_while_that_engine_lives",
        "src/rootlink/engine/packages/shelf.py",
        "if not _take(used) or not _take(making):",
        "if not _take(making):",
        "What is in use is swept like what is not.",
    ),
    Control(
        "tests/engine/test_tool_guard.py::test_what_a_server_says_at_the_handshake_is_held_once_it_changed",
        "src/rootlink/engine/catalogue.py",
        "why = self.hear(said) if said else None",
        "why = None",
        "A server's instructions pass whatever they have become.",
    ),
    Control(
        "tests/gateway/test_custom.py::test_a_secret_of_the_vault_is_not_a_strangers_however_its_name_comes_together",
        "src/rootlink/catalog/entry.py",
        "if name not in secret_names.values():",
        "if False:",
        "Nobody looks at the references in the whole of what is made.",
    ),
    Control(
        "tests/gateway/test_custom.py::test_a_secret_that_a_person_made_is_neither_a_strangers_nor_replaced_by_one",
        "src/rootlink/gateway/connect.py",
        "elif own in vault and not brought:",
        "elif own in vault:",
        "A secret of the right name is taken for the connection's.",
    ),
    Control(
        "tests/engine/test_tool_guard.py::test_no_argument_is_pushed_out_of_sight_by_a_long_one",
        "src/rootlink/engine/tools/question.py",
        "if not whole.endswith(CUT):",
        "if True:",
        "The first arguments take all the room.",
    ),
    Control(
        "tests/engine/oauth/test_sign_in.py::test_a_key_that_just_uses_tools_is_given_no_link_but_told_to_ask_the_operator",
        "src/rootlink/engine/mounts/remote.py",
        " and call.manages else None",
        " else None",
        "Whoever calls a tool may bind the connection to an account.",
    ),
    Control(
        "tests/provisioner/test_connected.py::test_what_a_stranger_brings_back_starts_no_engine",
        "src/rootlink/provisioner/engines.py",
        "line = self.live(project)",
        "line = await self.line(project)",
        "Any callback starts its project's engine.",
    ),
    Control(
        "tests/provisioner/test_connected.py::test_why_a_connect_failed_is_in_the_audit_log_in_words",
        "src/rootlink/provisioner/reconcile.py",
        "undo, row.id, why=why)",
        "undo, row.id)",
        "The log has the failure and not its reason.",
    ),
    Control(
        "tests/engine/test_function_tools.py::test_what_a_function_may_not_call_is_refused_in_words",
        "src/rootlink/engine/toolcalls.py",
        "if target is not None and target.asks:",
        "if False:",
        "A function calls what a person should have been asked about.",
    ),
    Control(
        "tests/engine/test_function_tools.py::test_a_tree_of_runs_shares_one_budget_of_calls",
        "src/rootlink/engine/functions/tools.py",
        "return Within((*self.functions, function), self.budget)",
        "return Within((*self.functions, function))",
        "Functions that call one another multiply their calls.",
    ),
    Control(
        "tests/functions/test_tools.py::test_a_function_calls_what_its_spec_names_and_a_connections_function_nothing_else",
        "src/rootlink/engine/functions/tools.py",
        'return ["*"] if connection is None else []',
        'return ["*"]',
        "A connection's function reaches every other connection's tools.",
    ),
    Control(
        "tests/functions/test_schemas.py::test_a_schema_that_could_do_harm_is_refused_in_words_and_at_once",
        "src/rootlink/engine/functions/schemas.py",
        "MAX_WEIGHT: Final = 20_000",
        "MAX_WEIGHT: Final = 20_000_000_000",
        "A kilobyte of schema takes all memory of the engine.",
    ),
    Control(
        "tests/functions/test_schemas.py::test_a_value_that_is_hard_to_judge_gets_an_answer_and_the_loop_does_not_wait",
        "src/rootlink/engine/functions/schemas.py",
        "AT_ONCE: Final = 300_000",
        "AT_ONCE: Final = 300_000_000_000",
        "Heavy validations run on the engine's event loop.",
    ),
    Control(
        "tests/functions/test_idempotent.py::test_a_key_is_known_after_the_engine_stopped_or_was_lost",
        "src/rootlink/engine/functions/host.py",
        'if kept.run.status != "killed":',
        "if False:",
        "A key that was used runs again.",
    ),
    Control(
        "tests/functions/test_idempotent.py::test_of_the_input_and_of_the_key_nothing_is_kept",
        "src/rootlink/engine/functions/host.py",
        "blake3.blake3(text, key=blake3.blake3(salt + named).digest()).digest(16)",
        "named + text",
        "Inputs and keys are written down with the run.",
    ),
    Control(
        "tests/functions/test_retention.py::test_a_secret_in_the_name_of_a_host_is_not_kept",
        "src/rootlink/engine/functions/cleaning.py",
        "Denied(hide(one.host), one.port, hide(one.message), one.count)",
        "one",
        "A secret sent as a host's name is on record.",
    ),
    Control(
        "tests/functions/test_retention.py::test_a_body_that_throws_words_of_its_own_for_a_refusal_does_not_hide_it",
        "src/rootlink/engine/functions/refusals.py",
        "self._refusals.note(error)",
        "pass",
        "A body that swallows a refusal hides it.",
    ),
    Control(
        "tests/e2e/test_function_operation.py::test_a_key_that_may_not_manage_rolls_nothing_back",
        "src/rootlink/engine/rest.py",
        '"/functions/{name}/rollback", "manage"',
        '"/functions/{name}/rollback", "use"',
        "Any key changes which version is live.",
    ),
    Control(
        "tests/functions/test_modules.py::test_no_module_reaches_out_of_its_function",
        "src/rootlink/engine/functions/isolates/wrapping.py",
        'f"{_STATIC}{statements}\\n}}}}\\n)"',
        'f"({source}\\n)"',
        "A module can close what is around it.",
    ),
    Control(
        "tests/functions/test_typescript.py::test_the_child_sees_no_environment_no_file_and_no_network",
        "src/rootlink/engine/functions/typescript.py",
        '"--permission",',
        '"--no-deprecation",',
        "Node reads files for whoever breaks its parser.",
    ),
    Control(
        "tests/functions/test_streams.py::test_an_answer_nobody_reads_is_not_read_ahead",
        "src/rootlink/engine/functions/exchange.py",
        "while self.answered and self._held >= READ_AHEAD:",
        "while False:",
        "Unread answers fill the engine's memory.",
    ),
    Control(
        "tests/functions/test_fresh.py::test_however_a_call_ends_its_isolate_ends",
        "src/rootlink/engine/functions/isolates/worker.py",
        "definition.fresh or cell.function in",
        "cell.function in",
        "An isolate that a run was in is kept for another.",
    ),
    Control(
        "tests/functions/test_protocol.py::test_a_worker_that_floods_is_ended_and_the_engine_goes_on_meanwhile",
        "src/rootlink/engine/functions/processes.py",
        "self._allowance < 0",
        "self._allowance < -(1 << 60)",
        "A V8 that was taken over keeps its engine busy for ever.",
    ),
    Control(
        "tests/functions/test_protocol.py::test_a_worker_that_says_what_no_honest_one_does_is_ended",
        "src/rootlink/engine/functions/processes.py",
        "length > MAX_FRAME_BACK or kind",
        "kind",
        "A V8 that was taken over fills its engine's memory.",
    ),
    Control(
        "tests/functions/test_lag.py::test_no_body_holds_up_the_engine",
        "src/rootlink/engine/functions/results.py",
        "if has_too_many_parts(json):",
        "if not json:",
        "A result of a million lists stops every other call.",
    ),
    Control(
        "tests/functions/test_streams.py::test_open_answers_are_limited_and_a_cancelled_one_makes_room",
        "src/rootlink/engine/functions/operations.py",
        "if len(self._open) >= MAX_OPEN:",
        "if False:",
        "One run holds every socket of the engine.",
    ),
    Control(
        "tests/functions/test_fetch.py::test_no_value_can_pass_for_a_response",
        "src/rootlink/engine/functions/isolates/prelude.js",
        " : done(value));",
        " : done(value, value?.r ? ',\"r\":1' : ''));",
        "An input that is passed on chooses the status and headers of a webhook's answer.",
    ),
    Control(
        "tests/functions/test_forms.py::test_calls_share_no_state_through_the_platforms_classes",
        "src/rootlink/engine/functions/isolates/apis/streams.js",
        "    each, isStream, source,",
        "    isStream, source,",
        "A run leaves marks on a hidden prototype.",
    ),
    Control(
        "tests/functions/test_crypto.py::test_a_key_that_is_not_extractable_stays_so",
        "src/rootlink/engine/functions/isolates/apis/crypto.js",
        "  delete CryptoKey.bytes; //",
        "  //",
        "A body reads the bytes of any key.",
    ),
    Control(
        "tests/functions/test_crypto.py::test_subtle_answers_and_refuses_as_node_does",
        "src/rootlink/engine/functions/subtle.py",
        "hmac.compare_digest(_mac(operation), _bytes(operation.s))",
        "_mac(operation).startswith(_bytes(operation.s))",
        "A piece of a signature passes for it.",
    ),
    Control(
        "tests/functions/test_triggers.py::test_a_due_time_is_run_once_however_often_the_engine_is_started",
        "src/rootlink/engine/functions/scheduler.py",
        '"since": now, "due": scheduled.schedule.after(now)}',
        '"since": now}',
        "A schedule fires again after a restart.",
    ),
    Control(
        "tests/functions/test_triggers.py::test_a_url_opens_its_own_function_until_it_is_turned_off_or_replaced",
        "src/rootlink/engine/functions/triggers.py",
        'hook.serial if hook is not None else "")',
        '"")',
        "Old URLs go on working.",
    ),
    Control(
        "tests/functions/test_triggers.py::test_what_a_function_left_behind_is_not_inherited",
        "src/rootlink/engine/functions/triggers.py",
        "return self._functions.get(*key).connection == connection",
        "return self._functions.get(*key).connection is not None",
        "A new function is called by the old one's URL.",
    ),
    Control(
        "tests/gateway/test_hooks.py::test_an_unknown_token_starts_nothing",
        "src/rootlink/gateway/hooks.py",
        "return row is not None and hook.hash in row.hooks",
        "return row is not None",
        "Anybody wakes any engine.",
    ),
    Control(
        "tests/gateway/test_hooks.py::test_nothing_a_function_answers_is_a_page_of_ours",
        "src/rootlink/gateway/hooks.py",
        'kind if kind in _KINDS else "text/plain"',
        'kind or "text/plain"',
        "A function puts HTML on the Console's origin.",
    ),
    Control(
        "tests/gateway/test_hooks.py::test_the_token_is_in_no_log_metric_or_audit_line",
        "src/rootlink/gateway/hooks.py",
        'why="no webhook was taken"',
        "why=hook",
        "The log holds what opens the webhook.",
    ),
    Control(
        "tests/engine/oauth/test_keys.py::test_a_client_says_who_it_is_by_the_algorithm_of_its_key_and_to_the_issuer_alone",
        "src/rootlink/engine/oauth/keys.py",
        '"aud": audience, "jti"',
        '"aud": [audience, "https://any.example"], "jti"',
        "Another authority takes our assertion for its own.",
    ),
    Control(
        "tests/engine/oauth/test_keys.py::test_tokens_are_bound_to_a_key_of_the_sign_in_and_renewed_with_it",
        "src/rootlink/engine/oauth/account.py",
        'return {"Authorization": f"DPoP {token}", "DPoP": proof}',
        'return {"Authorization": f"Bearer {token}"}',
        "A bound token is sent as one that anybody may use.",
    ),
    Control(
        "tests/engine/oauth/test_keys.py::test_a_key_that_cannot_be_used_is_refused_in_words_without_it",
        "src/rootlink/engine/oauth/keys.py",
        "UnsupportedAlgorithm):\n            raise Invalid(_NO_KEY)",
        "UnsupportedAlgorithm):\n            raise Invalid(_NO_KEY + pem)",
        "A private key is in the error that refuses it.",
    ),
]
EVERY = {control.test.rpartition("/")[2]: control for control in CONTROLS}


def promised() -> set[str]:
    page = (ROOT / "SECURITY.md").read_text().partition("## Promises")[2].partition("\n## ")[0]
    return set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", page))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The checkout again. What tests install once for all of them (`.tests`) is shared."""
    to = tmp_path / "copy"
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(ROOT / name, to / name)
    (ROOT / ".tests").mkdir(exist_ok=True)
    (to / ".tests").symlink_to(ROOT / ".tests")
    (to / "rootlink").symlink_to(to / "src" / "rootlink")  # for `python -m rootlink` without PYTHONPATH: it looks here first
    replace(to, *ENGINES_LIST)
    replace(to, *DOORS_LIST)
    # V8's zygote is started isolated and without an environment; the copy's must come from the copy
    replace(to, ZYGOTE, '"-I",', '"-s",')
    replace(
        to, ZYGOTE, 'env={"MALLOC_ARENA_MAX": "2"},', 'env={"MALLOC_ARENA_MAX": "2", "PYTHONPATH": os.environ["PYTHONPATH"]},'
    )
    return to


def replace(copy: Path, file: str, old: str, new: str) -> None:
    text = (copy / file).read_text()
    assert text.count(old) == 1, f"{file} holds {old!r} {text.count(old)} times: the control must be written anew"
    changed = text.replace(old, new)
    if file.endswith(".py"):
        compile(changed, file, "exec")  # a file that is no Python fails every test, and shows nothing
    (copy / file).write_text(changed)


def run(copy: Path, *words: str, patience: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    environ = {**inherited(), "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=copy, env=environ, capture_output=True, text=True, timeout=patience, check=False
    )


def outcome(copy: Path, *tests: str, patience: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory(prefix="rl") as short:  # the name of a unix socket has 108 bytes
        quiet = ("-p", "no:cacheprovider", f"--basetemp={short}/tests", f"--timeout={HUNG}")
        return run(copy, "-m", "pytest", "-x", "--tb=short", *quiet, *tests, patience=patience)


def test_a_control_imports_the_copy(copy: Path) -> None:
    done = run(copy, "-c", "import rootlink; print(rootlink.__file__)")
    assert Path(done.stdout.strip()).resolve() == (copy / "src" / "rootlink" / "__init__.py").resolve()


@pytest.mark.slow
@pytest.mark.timeout(5 * PATIENCE + 60)
def test_the_unchanged_copy_passes(copy: Path) -> None:
    """Of what is promised, all that takes no instance; and one that does, with an engine."""
    quick = [control.test for control in CONTROLS if "/e2e/" not in control.test]
    done = outcome(
        copy, *quick, "tests/e2e/test_canary.py::test_a_secret_is_found_nowhere_but_in_its_child", patience=5 * PATIENCE
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_every_promised_test_has_a_control_and_every_control_is_promised() -> None:
    assert promised() == {control.test for control in CONTROLS}
    assert len(EVERY) == len(CONTROLS)


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE + 60)
@pytest.mark.parametrize("name", EVERY)
def test_it_fails_when_the_bug_is_put_back(name: str, copy: Path) -> None:
    control = EVERY[name]
    replace(copy, control.file, control.old, control.new)
    done = outcome(copy, control.test)
    said = done.stdout + done.stderr
    assert done.returncode == 1, f"not failed though: {control.bug}\n{said[-4000:]}"
    assert re.search(r"^FAILED ", said, re.MULTILINE), f"broken rather than failed: {said[-4000:]}"
    broken = re.search(r"ERROR (?:at setup|collecting)|(?:Import|ModuleNotFound|Syntax|Name)Error", said)
    assert broken is None, f"broken rather than failed: {said[-4000:]}"
