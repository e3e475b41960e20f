"""The one place that imports ``libcst``; it comes with ``sage-compat[fix]``."""

try:
    import libcst as cst
    from libcst import metadata
except ImportError as error:
    raise ImportError(
        f"reading sources needs libcst, which is not installed ({error}): pip install 'sage-compat[fix]'"
    ) from error

__all__ = ["cst", "metadata"]
