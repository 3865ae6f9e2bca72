"""The encrypted network between hosts: what a capture on every host's outer interface sees of a running fleet."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slipway_marks as marks
from slipway_lab import Lab, LabHost, Run, Stranger, wait_until
from slipway_release import Load, RunningPlaybook

pytestmark = pytest.mark.usefixtures("mesh")
PORT = 51820
#: What others than the mesh may be seen to use: SSH, and the balancer's ports.
OPEN = {"22", "80", "443"}
#: After which WireGuard forgets a session that was not renewed.
SESSION_SECONDS = 180
INTERFACE = "sw-slipway"
#: The line of the lab's inventory that does without the mesh.
OFF = "  vars: {slipway_mesh: false}\n"
CAPTURE = "/var/tmp/slipway-capture"
#: As many bytes as the balancer lets through, and a row of a database that spans many packets.
BODY_BYTES = 10 * 2**20 - 100
ROW_KB = 64
#: What two cores have left where WireGuard runs in processes of theirs.
LOAD = ("@tests/load/support_desk.txt", "--rate=50")


def psql(lab: Lab, statement: str) -> str:
    """Run a statement on the database's host, as the product's user."""
    login = "host=127.0.0.1 passfile=/run/secrets/pgpass user=app dbname=app"
    return lab.service("postgres").execute("psql", login, "--no-psqlrc", "--tuples-only", "--no-align", "--command", statement).strip()


def mesh_address(host: LabHost) -> str:
    found = re.search(r"inet (\S+)/16", host.run(f"ip -4 address show dev {INTERFACE}"))
    assert found, f"{host} has no address in the mesh"
    return found[1]


@pytest.fixture(scope="module")
def marker(lab: Lab) -> str:
    """A word in the product's data, which travels wherever that does; written before the mesh is turned on."""
    word = f"marker{secrets.token_hex(12)}"
    with lab.client() as client:
        session = client.post("/api/sessions", json={}).json()["id"]
        assert client.post(f"/api/sessions/{session}/messages", json={"content": word}).status_code < 300
    assert int(psql(lab, f"select count(*) from messages where content like '%{word}%'")) > 0
    return word


@pytest.fixture(scope="module")
def undecided(lab: Lab, marker: str) -> dict[str, Run]:
    """What playbooks say of the lab, which runs without a mesh, while its inventory does not say whether it gets one."""
    assert marker
    hosts = Path(lab.inventory) / "hosts.yml"
    text = hosts.read_text(encoding="utf-8")
    before = [container.inspect["Id"] for container in lab.containers()]
    hosts.write_text(text.replace(OFF, ""), encoding="utf-8")
    try:
        found = {"without a secret": lab.playbook("site")}
        assert lab.playbook("secrets").returncode == 0
        for playbook, variables in {
            "site": {"accept": "restart"},
            "plan": {},
            "deploy": {"app_version": "1.0.0"},
            "rollback": {},
            "maintenance": {"state": "on"},
            "restore": {"point": "latest", "restore_confirm": "slipway"},
            "status": {},
        }.items():
            found[playbook] = lab.playbook(playbook, variables=variables)
    finally:
        hosts.write_text(text, encoding="utf-8")
    assert hosts.read_text(encoding="utf-8").count(OFF) == 1
    assert [container.inspect["Id"] for container in lab.containers()] == before
    return found


@pytest.fixture(scope="module")
def mesh(lab: Lab, marker: str, undecided: dict[str, Run]) -> Iterator[str]:
    """The lab with a mesh, and with the marker that was acknowledged before; afterwards as it was."""
    assert undecided
    settings = Path(lab.inventory) / "group_vars/all/40_mesh.yml"
    settings.write_text("---\nslipway_mesh: true\n", encoding="utf-8")
    try:
        lab.site()
        lab.wait_until_healthy()
        yield marker
    finally:
        settings.unlink()
    lab.site()
    lab.wait_until_healthy()
    for host in lab.hosts.values():
        assert not host.succeeds(f"ip link show dev {INTERFACE}"), f"{host} still has the interface"
        assert not host.succeeds("ls /etc/slipway/slipway/mesh"), f"{host} still has keys"
        assert not host.succeeds("ls /etc/systemd/system/slipway-slipway-mesh*"), f"{host} still has units"
    assert int(psql(lab, f"select count(*) from messages where content like '%{marker}%'")) > 0


@contextlib.contextmanager
def capture(lab: Lab) -> Iterator[None]:
    """Record all packets of every host's outer interface."""
    for host in lab.hosts.values():
        host.need("tcpdump")
        unit = f"systemd-run --unit slipway-capture --collect --quiet tcpdump -i eth0 -s 0 -U -B 65536 -Z root -w {CAPTURE}"
        host.run(f"{unit} && until test -s {CAPTURE}; do sleep 0.1; done")
    try:
        yield
    finally:
        for host in lab.hosts.values():
            host.run("systemctl stop slipway-capture", check=False)


def ports_seen(lab: Lab, host: LabHost) -> set[str]:
    """Return the ports of the lab's hosts to which packets went, as ``protocol/port`` of the lower one of the two."""
    addresses = {other.address for other in lab.hosts.values()}
    lines = host.run(f"tcpdump -nn -r {CAPTURE} 'ip and (tcp or udp)' 2>/dev/null")
    found = set()
    for line in lines.splitlines():
        ends = re.search(r"IP (\d+\.\d+\.\d+\.\d+)\.(\d+) > (\d+\.\d+\.\d+\.\d+)\.(\d+): (UDP)?", line)
        if ends and {ends[1], ends[3]} <= addresses:
            found.add(f"{'udp' if ends[5] else 'tcp'}/{min(int(ends[2]), int(ends[4]))}")
    return found


def nothing_plain(lab: Lab, *words: str) -> int:
    """Check that hosts used nothing but the mesh among them, and that no word is in a capture; return how many bytes were captured."""
    sent = 0
    for host in lab.hosts.values():
        for word in words:
            assert not host.succeeds(f"grep --quiet --binary-files=text {word} {CAPTURE}"), f"{host} sent or got {word} as plain text"
        seen = ports_seen(lab, host)
        assert f"udp/{PORT}" in seen, f"{host} was not seen to use the mesh: {seen}"
        assert {port.partition("/")[2] for port in seen} <= {*OPEN, str(PORT)}, host
        sent += int(host.run(f"stat --format %s {CAPTURE}"))
        host.run(f"rm {CAPTURE}")
    return sent


@pytest.mark.extended("mesh")
def test_a_stack_without_a_mesh_is_asked_and_not_moved(undecided: dict[str, Run]):
    said = {playbook: " ".join(run.output.split()) for playbook, run in undecided.items()}
    assert "vault_mesh_preshared_secret is not set" in said["without a secret"]
    assert "or set slipway_mesh: false, if the network between the hosts is private" in said["without a secret"]
    for playbook, run in undecided.items():
        assert run.returncode != 0, playbook
        assert run.changed == [], playbook
    for playbook in set(undecided) - {"without a secret"}:
        assert "this stack runs without a mesh, which stacks of several hosts have by default" in said[playbook], playbook
    assert "slipway-postgres on db1" in said["site"]
    # The product serves, and what it is asked to decide is all.
    assert undecided["status"].report["status"]["state"] == "attention", undecided["status"].excerpt


@pytest.mark.extended("mesh")
def test_nothing_between_hosts_is_plain_during_load_backup_and_release(lab: Lab, mesh: str):
    name = f"word{secrets.token_hex(12)}"
    with capture(lab):
        with lab.client() as client:
            session = client.post("/api/sessions", json={}).json()["id"]
            for _ in range(20):
                assert client.post(f"/api/sessions/{session}/messages", json={"content": name}).status_code < 300
                assert name in client.get(f"/api/sessions/{session}/messages").text
        backup = lab.playbook("backup", variables={"backup_run_full": True})
        assert backup.returncode == 0, backup.excerpt
        release = lab.playbook("deploy", variables={"app_version": "1.0.0", "app_release_strategy": "blue_green"})
        assert release.returncode == 0, release.excerpt
    # A base backup alone is larger: an empty capture would have no plain word either.
    assert nothing_plain(lab, name, mesh) > 10_000_000


@pytest.mark.extended("mesh")
def test_restored_data_travels_in_the_mesh_alone(lab: Lab, mesh: str):
    """From the host of the backups to that of each store."""
    marks.leave(lab, "before")
    left = marks.found(lab)
    done = lab.playbook("backup")
    assert done.returncode == 0, done.excerpt
    marks.leave(lab, "since")
    with capture(lab):
        restored = lab.playbook("restore", variables={"point": "latest", "restore_confirm": "slipway"})
        assert restored.returncode == 0, restored.excerpt
    assert marks.found(lab) == left
    assert nothing_plain(lab, mesh) > 10_000_000
    lab.wait_until_healthy()
    assert lab.hosts["backup1"].wait_for_backups() == "inactive"


@pytest.mark.extended("mesh-rotation")
def test_all_hosts_get_another_key_under_load_and_no_client_notices(lab: Lab, mesh: str, load: Callable[[], Load]):
    def keys() -> dict[str, str]:
        return {name: host.run("cat /etc/slipway/slipway/mesh/public_key").strip() for name, host in lab.hosts.items()}

    def secret() -> str:
        return lab.secrets_of(lab.inventory)["vault_mesh_preshared_secret"]

    assert mesh
    old, old_secret = keys(), secret()
    clients = load(arguments=LOAD)
    run = lab.playbook("rotate", variables={"what": "mesh"})
    assert run.returncode == 0, run.excerpt
    # Longer than a session lasts, so that each pair has agreed on another one since.
    time.sleep(SESSION_SECONDS)
    numbers = clients.end()
    assert numbers["failed"] == 0, numbers["failures"]
    assert numbers["requests"] > 0
    new = keys()
    assert not set(new.values()) & set(old.values())
    assert secret() != old_secret
    for name, host in lab.hosts.items():
        assert set(host.run(f"wg show {INTERFACE} peers").split()) == {key for other, key in new.items() if other != name}
    assert lab.site().changed == []


@pytest.mark.extended("mesh-rotation")
def test_a_rotation_that_is_killed_while_hosts_switch_is_ended_by_the_next_run(lab: Lab, load: Callable[[], Load]):
    def switches() -> bool:
        _before, task, after = run.output.partition("Switch one host after the other")
        return bool(task) and "changed: [" in after

    clients = load(arguments=LOAD)
    run = RunningPlaybook(lab, "rotate", what="mesh")
    # Some hosts have switched then, and others have not.
    while not switches():
        assert run.process.poll() is None, run.output[-6000:]
        time.sleep(0.05)
    run.kill()
    # Each pair agrees on another session meanwhile, with the keys and the pre-shared key that it was left with.
    time.sleep(SESSION_SECONDS)
    again = lab.playbook("rotate", variables={"what": "mesh"})
    assert again.returncode == 0, again.excerpt
    numbers = clients.end()
    assert numbers["failed"] == 0, numbers["failures"]
    assert numbers["requests"] > 0
    assert not any(host.succeeds("ls /etc/slipway/slipway/mesh/secrets/private_key.next") for host in lab.hosts.values())
    assert lab.site().changed == []


@pytest.mark.extended("mesh")
def test_large_bodies_rows_and_backups_get_through(lab: Lab):
    with lab.client() as client:
        assert client.post("/api/sessions", json={"unknown": "x" * BODY_BYTES}).status_code < 300
    row = lab.in_product(
        'python -c "import os, psycopg; '
        "connection = psycopg.connect(open(os.environ['DATABASE_URL_FILE']).read().strip()); "
        f"print(len(connection.execute('select repeat(%s, {ROW_KB} * 1024)', ['x']).fetchone()[0]))\""
    )
    assert int(row) == ROW_KB * 1024


@pytest.mark.extended("mesh")
def test_ports_of_stores_are_open_in_the_mesh_alone(lab: Lab, stranger: Stranger):
    client, database = lab.hosts["app1"], lab.hosts["db1"]
    address = mesh_address(database)
    assert client.can_connect(address, 5432)
    assert not lab.hosts["lb1"].can_connect(address, 5432)
    assert not client.can_connect(database.address, 5432)
    assert not stranger.can_connect(database.address, 5432)
    # Even packets that have the address of a peer, if they do not come out of the mesh.
    dropped = f"iptables -t mangle -L PREROUTING -vnx | awk '/{address}/ {{ print $1 }}'"
    before = int(database.run(dropped))
    route = f"{address}/32 via {database.address} src {mesh_address(client)}"
    client.run(f"ip route add {route}")
    try:
        assert not client.can_connect(address, 5432)
    finally:
        client.run(f"ip route delete {route}")
    assert int(database.run(dropped)) > before
    assert client.can_connect(address, 5432)


@pytest.mark.extended("mesh")
def test_rules_that_others_remove_are_loaded_again(lab: Lab):
    """As a reload of nftables does, and without a run."""
    client, database = lab.hosts["app1"], lab.hosts["db1"]
    address = mesh_address(database)
    mangle = "iptables -w 10 -t mangle"
    before = database.run(f"{mangle} -S")
    assert f"-d {address}/32" in before
    database.run(f"{mangle} -F")
    wait_until(lambda: database.run(f"{mangle} -S") == before, 30, "the mesh has its rules")
    assert client.can_connect(address, 5432)
    assert lab.site().changed == []
    # One that is down gets none.
    client.run(f"systemctl stop slipway-slipway-mesh.service && {mangle} -F && systemctl start slipway-slipway-mesh-rules.service")
    assert INTERFACE not in client.run(f"{mangle} -S")
    client.run("systemctl start slipway-slipway-mesh.service")
    assert INTERFACE in client.run(f"{mangle} -S")
    lab.wait_until_healthy()


@pytest.mark.extended("mesh")
def test_the_mesh_is_back_before_the_engine_after_a_reboot(lab: Lab):
    host = lab.hosts["db1"]
    host.reboot()
    lab.wait_until_healthy()
    started = [
        int(host.run(f"systemctl show --property ActiveEnterTimestampMonotonic --value {unit}.service"))
        for unit in ("slipway-slipway-mesh", "docker")
    ]
    assert 0 < started[0] < started[1]
    with lab.client() as client:
        assert client.post("/api/sessions", json={}).status_code < 300


@pytest.mark.extended("mesh")
def test_a_host_with_another_key_is_back_after_one_run(lab: Lab):
    lab.hosts["cache1"].run("rm -r /etc/slipway/slipway/mesh && systemctl stop slipway-slipway-mesh.service")
    lab.site()
    lab.wait_until_healthy()
    assert lab.site().changed == []


@pytest.mark.extended("mesh")
def test_a_filtered_port_is_named_by_its_pair_before_anything_moves(lab: Lab):
    one, other = lab.hosts["app1"], lab.hosts["db1"]
    rule = f"INPUT -s {one.address} -p udp --dport {PORT} -j DROP"
    before = [container.inspect["Id"] for container in lab.containers()]
    other.run(f"iptables -I {rule}; iptables -I OUTPUT -d {one.address} -p udp --sport {PORT} -j DROP")
    try:
        # A new session, as one that lasts needs no handshake.
        one.run("systemctl restart slipway-slipway-mesh.service")
        run = lab.playbook("site")
    finally:
        other.run(f"iptables -D {rule}; iptables -D OUTPUT -d {one.address} -p udp --sport {PORT} -j DROP")
    assert run.returncode != 0
    assert "app1" in run.output
    assert "have no handshake: allow UDP between these addresses and ports" in " ".join(run.output.split())
    assert [container.inspect["Id"] for container in lab.containers()] == before
    lab.site()
