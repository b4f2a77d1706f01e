"""What registries hold that is not an image which nodes can run, recognized by media types, for messages."""

from __future__ import annotations

from gateway.image.manifest import NotForUs
from udi.jsonvalue import JsonValue
from udiroot.errors import printable

_OTHER = "it has no Linux file system; give the name of an image"
_ARTIFACTS = (
    ("application/vnd.cncf.helm.", "a Helm chart", "pull the images that the chart names"),
    ("application/vnd.sylabs.sif.", "a SIF image of Singularity or Apptainer", "pull the image that it was built from"),
    ("application/vnd.wasm.", "a WebAssembly module", "compute nodes run Linux programs; pull an image for Linux"),
    ("application/vnd.module.wasm.", "a WebAssembly module", "compute nodes run Linux programs"),
    ("application/wasm", "a WebAssembly module", "compute nodes run Linux programs; pull an image for Linux"),
    ("application/vnd.bytecodealliance.wasm.", "a WebAssembly module", "compute nodes run Linux programs"),
    ("application/vnd.dev.cosign.", "a signature", "give the name of the image that it signs"),
    ("application/vnd.cncf.notary.", "a signature", "give the name of the image that it signs"),
    ("application/vnd.in-toto", "an attestation", "give the name of the image that it is about"),
    ("application/vnd.dsse.", "an attestation", "give the name of the image that it is about"),
    ("application/spdx", "a list of software (SBOM)", "give the name of the image that it is about"),
    ("application/vnd.cyclonedx", "a list of software (SBOM)", "give the name of the image that it is about"),
    ("application/vnd.docker.plugin.", "a plugin of Docker", _OTHER),
    ("application/vnd.cnab.", "an application bundle (CNAB)", "pull the images that the bundle names"),
    ("application/vnd.docker.compose.", "a Compose application", "pull the images that it names"),
    ("application/vnd.ollama.", "a model of Ollama", _OTHER),
    ("application/vnd.docker.ai.", "an AI model", _OTHER),
)
_CONFIGS = ("application/vnd.oci.image.config.", "application/vnd.docker.container.image.")
_ENCRYPTED = ("+encrypted", ".encrypted")


def check_is_image(manifest: JsonValue) -> None:
    """Raises NotForUs, which names what it is, for a manifest of anything that cannot be an image."""
    config, layers = manifest.get("config"), manifest.get("layers")
    listed = [] if layers.is_null else layers.items("manifest has no config and layers")
    kinds = [
        manifest.get("artifactType").text(""),
        config.get("mediaType").text("") if not config.is_null else "",
        *(layer.as_object(f"manifest has no description of layer {number}").get("mediaType").text("")
          for number, layer in enumerate(listed, 1)),
    ]  # fmt: skip
    encrypted = [number for number, kind in enumerate(kinds[2:], 1) if kind.lower().endswith(_ENCRYPTED)]
    if encrypted:
        raise NotForUs(
            f"layer {encrypted[0]} is encrypted ({printable(kinds[2:][encrypted[0] - 1])})",
            "shifter-xc has no keys of images; ask the publisher for an image that is not encrypted",
        )
    if kinds[1].startswith(_CONFIGS):
        kinds = kinds[2:]  # the configuration is one of an image: only layers may still be of something else
    for kind in kinds:
        for beginning, name, hint in _ARTIFACTS:
            if kind.lower().startswith(beginning):
                raise NotForUs(f"this is {name}, not an image ({printable(kind)})", hint)
    if config.is_null or layers.is_null:
        raise NotForUs("manifest has no config and layers", _which(kinds))


def check_layers(manifest: JsonValue) -> None:
    """Raises NotForUs where the configuration, which is not one of an image, shows what the manifest is of."""
    kind = manifest.get("config").get("mediaType").text("")
    if kind and not kind.startswith(_CONFIGS):
        raise NotForUs(f"this is an artifact of type {printable(kind)}, not an image", _OTHER)


def _which(kinds: list[str]) -> str:
    named = next((kind for kind in kinds if kind), "")
    return f"it is an artifact of type {printable(named)}" if named else "it may be of an artifact that is not an image"
