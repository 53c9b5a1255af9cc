"""Files to documents. One module a format family; `chunk` turns documents into passages.

`read_corpus` walks files and folders in a stable order and yields documents one by one, so that a corpus of any size
passes through without its texts piling up. What can't be read is told to `LeftOut` with its reason, and the run goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rag.core import Located
from rag.errors import CorpusError
from rag.ingest import docx, html, jats, jsonl, pdf, pubmed, text, xml
from rag.ingest.source import File, LeftOut, Skipped, suffix

__all__ = ["READERS", "File", "LeftOut", "Skipped", "find_files", "read_corpus"]

Reader = Callable[[File, LeftOut], Iterator[Located]]
"""Raises `CorpusError`, without naming the file, where that can't be read, or can't be read on."""


def read_xml(file: File, left_out: LeftOut) -> Iterator[Located]:
    root = xml.root(file)
    if root in pubmed.ROOTS:
        return pubmed.read(file, left_out)
    if root in jats.ROOTS:
        return jats.read(file, left_out)
    raise CorpusError(f"XML with the root <{root}>: neither PubMed nor JATS. Leave it out.")


READERS: Mapping[str, Reader] = {
    ".jsonl": jsonl.read,
    ".ndjson": jsonl.read,
    ".txt": text.read_plain,
    ".md": text.read_markdown,
    ".markdown": text.read_markdown,
    ".xml": read_xml,
    ".nxml": read_xml,
    ".pdf": pdf.read,
    ".html": html.read,
    ".htm": html.read,
    ".docx": docx.read,
}
"""By suffix; `.gz` may follow each."""


def find_files(sources: Sequence[Path], left_out: LeftOut) -> list[File]:
    """Every readable file under `sources`, once; other suffixes are counted, and links that lead out of a folder skipped.

    Hidden files and folders are left out. Raises `CorpusError` where a source doesn't exist, is a file
    of an unknown type, or where nothing readable is found.
    """
    found: list[File] = []
    known = f"{', '.join(READERS)}, each also .gz"
    for source in sources:
        if source.is_file():
            if suffix(source.name) not in READERS:
                raise CorpusError(f"Can't read {source}: {source.suffix or 'no suffix'} isn't a known type ({known}).")
            found.append(File(source, source.name))
        elif source.is_dir():
            # Two folders may hold files of the same name, also where they are read one after the other. `..` has no name itself.
            own_name = Path(os.path.realpath(source)).name
            here = []
            for path in _walk(source, left_out):
                name = Path(own_name, path.relative_to(source)).as_posix()
                if suffix(path.name) not in READERS:
                    left_out.counts[f"{path.suffix.lower() or path.name} files"] += 1
                elif reason := _unfit(path, name, source):
                    left_out.skip(path, reason)
                else:
                    here.append(File(path, name))
            found += _once(here, left_out)
        else:
            raise CorpusError(f"No such file or folder: {source}. Give files or folders of these types: {known}.")
    if not found:
        places = ", ".join(str(source) for source in sources)
        raise CorpusError(f"Nothing to index in {places}: {_first(left_out) or f'expected files of type {known}.'}")
    return found


def read_corpus(files: Sequence[File], left_out: LeftOut) -> Iterator[Located]:
    """Documents of all files, in order. Of a PubMed citation's versions the last counts, and none where it is deleted.

    Raises `CorpusError` at the end where there was no document at all.
    """
    last, untold = _last_versions(files, left_out)
    seen: dict[str, str] = {}
    for file in files:
        before = len(seen)
        versions = last if READERS[file.suffix] is read_xml else {}  # ids of other files aren't PubMed's
        try:
            for located in READERS[file.suffix](file, left_out):
                identity, where = located.document.id, located.where
                if versions.get(identity, where) != where:
                    left_out.counts["citations that a later one replaces or deletes"] += 1
                elif identity in seen:
                    left_out.skip(
                        where, f"document id {identity!r} stands already in {seen[identity]}. Give it another."
                    )
                else:
                    seen[identity] = where
                    yield located
        except MemoryError:
            raise
        except Exception as error:  # whatever a stranger's file makes a reader raise: that file alone is lost
            read = f" What stands before it is read ({len(seen) - before:,})." if len(seen) > before else ""
            left_out.skip(file.path, _reason(error) + read)
        else:
            if file in untold:
                left_out.skip(file.path, f"which citations it replaces or deletes isn't known: {untold[file]}")
    left_out.deleted -= seen.keys()
    left_out.empty = {
        identity: where
        for identity, where in left_out.empty.items()
        if identity not in seen and last.get(identity, where) == where
    }
    if not seen and not left_out.deleted and not left_out.empty:
        raise CorpusError(f"Nothing could be read: {_first(left_out) or 'no document has any text.'}")


def _last_versions(files: Sequence[File], left_out: LeftOut) -> tuple[dict[str, str], dict[File, str]]:
    """(where each PubMed citation's last version stands, why a file couldn't tell all of its own). A pass of its own: what
    replaces or deletes a citation follows it, mostly in another file, when its passages would be encoded already.

    The last is that of the highest rank, and of several the one that comes last.
    """
    last: dict[str, str] = {}
    highest: dict[str, int] = {}
    untold: dict[File, str] = {}
    for file in files:
        if READERS[file.suffix] is not read_xml:
            continue
        try:
            for one in pubmed.versions(file) if xml.root(file) in pubmed.ROOTS else ():
                if one.rank < highest.get(one.identity, 0):
                    continue
                last[one.identity] = one.where
                if one.is_deleted:
                    left_out.deleted.add(one.identity)
                else:
                    highest[one.identity] = one.rank
                    left_out.deleted.discard(one.identity)
        except MemoryError:
            raise
        except Exception as error:  # `read_corpus` comes to the same place, and tells. If it doesn't, it tells this
            untold[file] = _reason(error)
    return last, untold


def _walk(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        left_out.skip(error.filename, _reason(error))

    for root, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(root, name) for name in folders):
            # One that leads inside is no loss: what is in it is read in its own place.
            if os.path.islink(path) and not _inside(path, folder):  # noqa: PTH114  # where it may not look, Path's raises
                left_out.skip(path, "a link that leads out of the folder. Give the folder that it leads to.")
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("."))


def _once(files: Sequence[File], left_out: LeftOut) -> Iterator[File]:
    """All but links to what is read in its own place, or by a link before."""
    links = {file for file in files if file.path.is_symlink()}
    read = {os.path.realpath(file.path) for file in files if file not in links} if links else set()
    for file in files:
        if file in links:
            leads_to = os.path.realpath(file.path)
            if leads_to in read:
                left_out.counts["links to files that are read anyway"] += 1
                continue
            read.add(leads_to)
        yield file


def _unfit(path: Path, name: str, folder: Path) -> str | None:
    """Why a file that the walk found isn't opened."""
    try:
        if path.is_symlink() and not _inside(path, folder):
            return "a link that leads out of the folder. Give the file that it leads to."
        if not path.is_file():
            return "a link that leads nowhere." if path.is_symlink() else "no regular file."
    except OSError as error:
        return _reason(error)
    if "\ufffd" in name.encode("utf-8", "replace").decode() or not name.isprintable():
        return "its name, or its folder's, holds characters that can't be shown. Rename it."
    return None


def _inside(path: Path, folder: Path) -> bool:
    # Not `Path.resolve`, which fails on a link to itself.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}. Mend its permissions, or leave it out."
    return str(error) if isinstance(error, CorpusError) else f"can't be read: {type(error).__name__}: {error}."


def _first(left_out: LeftOut) -> str:
    if not left_out.skipped:
        return ""
    more = len(left_out.skipped) - 1
    return f"{left_out.skipped[0].where}: {left_out.skipped[0].reason}" + (f" And {more:,} more." if more else "")
