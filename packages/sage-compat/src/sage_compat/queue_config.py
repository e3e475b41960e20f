"""Settings of queues as old programs load them: from a file, a dictionary or nothing. The environment always wins."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from sage_qd import BackendUnavailableError

__all__ = ["QueueConfig", "QueueConfigManager", "get_default_config", "get_queue_config_from_env", "load_queue_config"]

_TRUE: Final = ("true", "1", "yes")
_BACKENDS: Final = ("auto", "sage_queue", "ray_queue", "python_queue")


@dataclass
class QueueConfig:
    """
    Settings of queues.

    Attributes:
        backend: ``auto``, ``sage_queue``, ``ray_queue`` or ``python_queue``.
        maxsize: Room, in bytes where the backend counts bytes.
        auto_cleanup: Whether queues go with their last user.
        timeout: Seconds.
        namespace: Of shared queues.
        enable_multi_tenant: Whether names are apart for each user and session.
        mmap_path: Where mapped files lay.
        ray_address: Of a Ray cluster.
        actor_options: For Ray actors.
        batch_size: Messages at a time.
        prefetch_count: Messages ahead.
        enable_compression: Whether messages are compressed.
        enable_metrics: Whether metrics are kept.
        log_level: For logging.
        stats_interval: Seconds between two statistics.
        fallback_backend: What comes when the backend cannot be had.
        auto_fallback: Whether something does.
    """

    backend: str = "auto"
    maxsize: int = 1024 * 1024
    auto_cleanup: bool = True
    timeout: float = 30.0
    namespace: str | None = None
    enable_multi_tenant: bool = True
    mmap_path: str | None = None
    ray_address: str | None = None
    actor_options: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 1
    prefetch_count: int = 0
    enable_compression: bool = False
    enable_metrics: bool = False
    log_level: str = "INFO"
    stats_interval: int = 60
    fallback_backend: str = "python_queue"
    auto_fallback: bool = True


def _truth(text: str) -> bool:
    return text.lower() in _TRUE


_VARIABLES: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "SAGE_QUEUE_BACKEND": ("backend", str),
    "SAGE_QUEUE_MAXSIZE": ("maxsize", int),
    "SAGE_QUEUE_TIMEOUT": ("timeout", float),
    "SAGE_QUEUE_NAMESPACE": ("namespace", str),
    "SAGE_QUEUE_MMAP_PATH": ("mmap_path", str),
    "SAGE_QUEUE_AUTO_CLEANUP": ("auto_cleanup", _truth),
    "SAGE_QUEUE_ENABLE_MULTI_TENANT": ("enable_multi_tenant", _truth),
    "SAGE_QUEUE_LOG_LEVEL": ("log_level", str),
    "SAGE_QUEUE_ENABLE_METRICS": ("enable_metrics", _truth),
    "RAY_ADDRESS": ("ray_address", str),
}


class QueueConfigManager:
    """
    Loads, checks and saves settings.

    Args:
        config_path: Kept for those who read it.
    """

    def __init__(self, config_path: str | None = None) -> None:
        self.config_path = config_path
        self._config: QueueConfig | None = None

    def load_config(self, config_data: str | dict[str, Any] | None = None) -> QueueConfig:
        """
        Load settings; the environment goes before all of them.

        Args:
            config_data: Path of a ``.json``, ``.yaml`` or ``.yml`` file, a dictionary, or None for the defaults.

        Raises:
            FileNotFoundError: ``Config file not found: …``.
            ValueError: The file has another ending, or ``config_data`` is of another type.
            TypeError: There is no such setting.
        """
        if config_data is None:
            settings = {}
        elif isinstance(config_data, str):
            settings = _load(config_data)
        elif isinstance(config_data, dict):
            settings = dict(config_data)
        else:
            raise ValueError("config_data must be str (path), dict, or None")
        self._config = QueueConfig(**settings | _from_environment())
        return self._config

    def get_config(self) -> QueueConfig:
        """Return the settings; loads the defaults when nothing was loaded."""
        return self.load_config() if self._config is None else self._config

    def validate_config(self, config: QueueConfig) -> bool:
        """
        Check settings.

        Raises:
            ValueError: ``Configuration validation failed: …``.
        """
        folder = os.path.dirname(config.mmap_path) if config.mmap_path else None
        for wrong, reason in (
            (config.backend not in _BACKENDS, f"Invalid backend: {config.backend}"),
            (config.maxsize <= 0, "maxsize must be positive"),
            (config.timeout <= 0, "timeout must be positive"),
            (folder is not None and not os.path.isdir(folder), f"Invalid mmap_path directory: {config.mmap_path}"),
        ):
            if wrong:
                raise ValueError(f"Configuration validation failed: {reason}")
        return True

    def save_config(self, config: QueueConfig, file_path: str) -> None:
        """
        Check settings and write them to a ``.json``, ``.yaml`` or ``.yml`` file.

        Raises:
            ValueError: A setting is wrong, or the file has another ending.
        """
        self.validate_config(config)
        if file_path.endswith(".json"):
            text = json.dumps(asdict(config), indent=2)
        elif file_path.endswith((".yaml", ".yml")):
            text = _yaml().dump(asdict(config), default_flow_style=False)
        else:
            raise ValueError("Output file must be .yaml, .yml, or .json")
        Path(file_path).write_text(text, encoding="utf-8")


def _load(file_path: str) -> dict[str, Any]:
    if not os.path.exists(file_path):
        raise FileNotFoundError(f"Config file not found: {file_path}")
    text = Path(file_path).read_text(encoding="utf-8")
    if file_path.endswith(".json"):
        found = json.loads(text)
    elif file_path.endswith((".yaml", ".yml")):
        found = _yaml().safe_load(text) or {}
    else:
        raise ValueError("Config file must be .yaml, .yml, or .json")
    return dict(found)


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise BackendUnavailableError(
            backend="YAML configuration",
            missing="PyYAML",
            install="pip install 'sage-compat[yaml]', or use a .json file",
        ) from error
    return yaml


def _from_environment() -> dict[str, Any]:
    return {name: read(os.environ[key]) for key, (name, read) in _VARIABLES.items() if key in os.environ}


_manager: Final = QueueConfigManager()


def get_default_config() -> QueueConfig:
    """Return the defaults, with what the environment says."""
    return _manager.load_config()


def load_queue_config(config_path: str) -> QueueConfig:
    """Return what a file says, with what the environment says."""
    return QueueConfigManager().load_config(config_path)


def get_queue_config_from_env() -> QueueConfig:
    """Return the settings that were loaded last, else the defaults with what the environment says."""
    return _manager.get_config()
