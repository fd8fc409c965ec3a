"""`import-layout`: copies image layouts of any tool into the store, beside any number of servers, and removes a layout
that was moved.

Repository by repository, what is missing is copied and hashed (`imports.repository`). No reader sees anything before
the commit, so a run may be killed at any moment, and the next one skips what is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial

from zotctl.config import is_bucket
from zotctl.errors import (
    CannotLink,
    Exists,
    LayoutInvalid,
    NoSpace,
    NoSuchStore,
    NotEmpty,
    NotFound,
    StorageError,
    Unavailable,
    UsageError,
    ZotctlError,
    quoted,
)
from zotctl.jobs.finding import DAMAGE_KINDS, Finding
from zotctl.jobs.imports.archives import ArchiveContent, ArchiveListing, L, read_archive, staged
from zotctl.jobs.imports.distribution import DistributionTree, tree_in, tree_of_bucket
from zotctl.jobs.imports.mirror import Mirror, refuse_mirror, source_tree
from zotctl.jobs.imports.plan import ImportOptions, plan_import
from zotctl.jobs.imports.repository import RepositoryImport
from zotctl.jobs.imports.sources import (
    MOVED,
    PIPE,
    THE_LAYOUT,
    BucketSource,
    Layout,
    StoredLayout,
    bucket_root,
    in_bucket,
    in_directory,
    is_archive,
    opened,
    past_beside,
    proposed_by_path,
    read_layout,
    refuse_own,
    requirement,
    source_reader,
    store_above,
    valid_name,
)
from zotctl.jobs.report import counted
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest
from zotctl.storage import Store, keys
from zotctl.storage.distribution import ROOT, is_distribution
from zotctl.storage.driver import Driver, Info, read
from zotctl.storage.facts import Reference
from zotctl.storage.file_identity import same_file
from zotctl.storage.graph import ManifestGraph
from zotctl.storage.history import Timeline
from zotctl.storage.index import LARGEST_INDEX_BYTES, REPOSITORY, parse_index
from zotctl.storage.root import Root


def import_layout(run: Run, source: str, options: ImportOptions | None = None) -> None:
    """Import a directory, a bucket, an archive, or "-", an archive from standard input.

    Problems of single images become findings. Raises NoSuchStore if nothing is there, UsageError if a choice is
    missing, LayoutInvalid for what is no layout and for a refused archive, NoSpace, HeldElsewhere.
    """
    options = options or ImportOptions()
    options.check()
    _refuse(run, source, options)
    with run.leases():
        if is_bucket(source):
            _import_bucket(run, source, options)
        elif is_archive(source):
            _import_archive(run, source, options)
        else:
            _import_directory(run, source, options)


def _refuse(run: Run, source: str, options: ImportOptions) -> None:
    """Raise UsageError for options that don't fit the source, before anything is done."""
    roots = [root.label for root in run.store.roots]
    if options.move:
        refuse_move(source)
    is_old = not is_bucket(source) and source != PIPE and is_distribution(source)
    if not (is_old or is_bucket(source)):
        _refuse_tags(source, options)
    if options.move and is_old:
        raise UsageError(f"--move removes image layouts, and {source} has none: import it with --link, then remove it")
    if options.link and any(is_bucket(place) for place in (source, *roots)):
        raise UsageError("--link makes hard links, and a bucket has none; leave it out, and the bytes are copied")
    if options.mirror:
        refuse_mirror(source, roots)
    if is_bucket(source):
        refuse_own(source, roots, ROOT)  # of a registry's storage, only the tree is read
    elif not is_archive(source):
        refuse_own(source, roots)


def _refuse_tags(source: str, options: ImportOptions) -> None:
    if options.tags is not None:
        raise UsageError(f"--tags is for the storage of a registry such as Harbor, and {source} is none")


def _import_bucket(run: Run, source: str, options: ImportOptions) -> None:
    """Import what is in a bucket: a layout, a tree of layouts, a store of ours with the content of its pool, or the
    storage of distribution."""
    with bucket_root(run.store, source) as root:
        if (tree := tree_of_bucket(run, root, options.tags)) is not None:
            _import_tree(run, BucketSource(root.protocol, tree), tree.names(), source, options, tree.timeline)
            return
        _refuse_tags(source, options)
        refuse_own(source, [root.label for root in run.store.roots])
        driver, names = in_bucket(root, source)
        past = driver.timeline if names != [THE_LAYOUT] else lambda name: None
        _import_tree(run, driver, names, source, options, past)


def _import_archive(run: Run, source: str, options: ImportOptions) -> None:
    label = "the archive from the pipe" if source == PIPE else source
    proposal = None if source == PIPE else proposed_by_path(source)
    with opened(source) as stream:
        if run.dry_run:
            _import_content(run, read_archive(run, stream, label, ArchiveListing()), label, proposal, options)
            return
        repository = None if options.all else options.repo  # with --all a tree goes below it
        with staged(run, _staging_root(run, options), stream, label, repository) as content:
            _import_content(run, content, label, proposal, options)


def _import_content(
    run: Run, content: ArchiveContent[L], label: str, proposal: str | None, options: ImportOptions
) -> None:
    """Import the layouts of an archive. `proposal`: the repository that its name proposes."""
    for finding in content.findings:
        run.finding(finding)
    if not content.is_tree:
        for place, layout in content.layouts.items():
            _propose(layout, (valid_name(place) if place else None) or proposal, options)
            _import_one(run, layout, options)
        return
    _check_tree(label, list(content.layouts), options)
    for place, error in content.problems.items():
        run.error(place, error, None)
    for place, layout in content.layouts.items():
        run.check()
        if _is_away(run):
            return
        if _is_named(run, layout, place or (proposal or ""), options):
            with _guarded(run, place, lambda: None):
                _import_one(run, layout, options)


def _staging_root(run: Run, options: ImportOptions) -> Root:
    """The root that the images most likely go to, so that a link from the staged layout is enough."""
    if options.repo is not None:
        return run.store.repository_for_push(options.repo).root
    return next((root for root in run.store.roots if not root.read_only), run.store.roots[0])


def _import_directory(run: Run, source: str, options: ImportOptions) -> None:
    if is_distribution(source):
        _import_distribution(run, source, options)
        return
    writable = options.move and not run.dry_run
    driver, names = in_directory(source, partial(run.error, root=None), writable=writable, follow=not options.move)
    _import_tree(run, driver, names, source, options, lambda name: past_beside(source, name, run.clock))


def _import_distribution(run: Run, source: str, options: ImportOptions) -> None:
    tree = tree_in(run, source, options.tags)
    _import_tree(run, tree, tree.names(), source, options, tree.timeline)


def _import_tree(
    run: Run,
    driver: Driver,
    names: list[str],
    source: str,
    options: ImportOptions,
    past: Callable[[str], Timeline | None],
) -> None:
    """Import the layouts `names`. `past`: the history of a layout in the store that it lies in."""
    require = requirement(driver, source)
    if names == [THE_LAYOUT]:
        layout = read_layout(driver, THE_LAYOUT, source, half_moved=options.move)
        layout.require = require
        _propose(layout, proposed_by_path(source), options)
        mirror = Mirror(run, source, options, require, None) if options.mirror else None
        if mirror is not None and mirror.is_unchanged(layout):
            return
        layout.past = past(THE_LAYOUT)
        _import_one(run, layout, options, mirror)
    else:
        mirror = _import_layouts(run, driver, names, source, options, past, require)
    if mirror is not None and not _is_away(run):
        mirror.finish()


def _import_layouts(
    run: Run,
    driver: Driver,
    names: list[str],
    source: str,
    options: ImportOptions,
    past: Callable[[str], Timeline | None],
    require: Callable[[], None],
) -> Mirror | None:
    """Import the layouts of a tree, and return the mirror that says what goes, if one is wanted."""
    _check_tree(source, names, options)
    tree = source_tree(driver, names, options)
    mirror = Mirror(run, source, options, require, tree) if options.mirror else None
    if mirror is not None and tree is not None:
        mirror.survey(tree)
    is_store = isinstance(driver, BucketSource | DistributionTree) or _info(driver, keys.HIDDEN) is not None
    is_alone = len(names) == 1 and not (options.repo and options.all) and not is_store and not options.mirror
    for name in names:
        run.check()
        if _is_away(run):
            break
        if mirror is not None:
            mirror.begin()
        with nullcontext() if is_alone else _guarded(run, name, require):
            _import_below(run, driver, name, f"{source}/{name}", options, past, require, mirror, fixed=not is_alone)
    return mirror


def _propose(layout: Layout, proposal: str | None, options: ImportOptions) -> None:
    """Give a single layout the repository that it goes to if none is said: the one that an archive of ours names, or
    else `proposal`."""
    said = None
    with suppress(LayoutInvalid):
        said = valid_name(layout.index.annotation(REPOSITORY))
    layout.proposal, layout.fixed = said or proposal, said is not None and options.repo is None


def _is_away(run: Run) -> bool:
    """Whether no root is left to write to, since some went away, which is reported already."""
    return bool(run.away) and all(root.read_only or root.label in run.away for root in run.store.roots)


def _check_tree(source: str, names: list[str], options: ImportOptions) -> None:
    if options.mirror and not names:
        raise NoSuchStore(f"{source} has no repository: is it mounted? --mirror follows no empty source")
    if len(names) > 1 and (options.tag or (options.repo and not options.all)):
        raise UsageError(
            f"{source} holds {len(names)} layouts: give one of them, or leave out --repo and --tag; "
            "with --repo NAME and --all they go below NAME/"
        )


def _import_below(
    run: Run,
    driver: Driver,
    name: str,
    label: str,
    options: ImportOptions,
    past: Callable[[str], Timeline | None],
    require: Callable[[], None],
    mirror: Mirror | None,
    *,
    fixed: bool,
) -> None:
    layout = read_layout(driver, name, label, half_moved=options.move)
    layout.require = require
    if _is_named(run, layout, name, options, fixed=fixed):
        if mirror is not None and mirror.is_unchanged(layout):
            return
        layout.past = past(name)
        _import_one(run, layout, options, mirror)


def _is_named(run: Run, layout: Layout, name: str, options: ImportOptions, *, fixed: bool = True) -> bool:
    """Give one layout of a tree the repository that its path `name` proposes. False: there is none, which is
    reported. `fixed`: that overrides the names of its images, as in a store; a layout that lies alone in a folder of
    other things, as in a package, has names of its own."""
    below = f"{options.repo}/{name}" if options.repo else name
    proposal = valid_name(below) if options.all or not options.repo else options.repo
    if proposal is None:
        reason = f"{quoted(name)} is no repository name; import it alone, with --repo"
        run.finding(Finding(name, None, "bad_name", reason, action="skip"))
        run.report.codes.append(5)
        return False
    layout.proposal, layout.fixed = proposal, fixed
    return True


@contextmanager
def _guarded(run: Run, name: str, require: Callable[[], None]) -> Iterator[None]:
    """Report an error of one layout, and go on with the others (I11). A full disk ends the run, and so does a source
    that is away. If a root is away, that is reported instead."""
    try:
        yield
    except NoSpace:
        raise
    except ZotctlError as error:
        require()
        lost = [run.is_lost(root, error) for root in run.store.roots]
        if not (isinstance(error, Unavailable) and any(lost)):
            run.error(name, error, None)


def _import_one(run: Run, layout: Layout, options: ImportOptions, mirror: Mirror | None = None) -> None:
    if options.move and isinstance(layout, StoredLayout):
        refuse_served(run.store, layout)
    for row in layout.index.rows():
        layout.embedded.note(row.raw)
    graph = ManifestGraph(source_reader(layout), each=layout.each)
    graph.add(Reference(row.digest, row.size, row.media_type) for row in layout.index.rows() if row.digest is not None)
    if graph.faults:
        layout.require()
    plan = plan_import(layout, graph.facts, options)
    for finding in plan.findings:
        if finding.action == "skip" and finding.kind not in DAMAGE_KINDS:
            run.report.codes.append(5)
        run.finding(finding)
    if plan.tags_lost:
        run.report.codes.append(5)
    importing = [RepositoryImport(run, layout, graph, name, rows, options) for name, rows in plan.repositories.items()]
    if plan.untagged:
        run.add("untagged_left_out", plan.untagged)
    is_whole = options.tag is None and not plan.untagged
    if len(importing) == 1 and is_whole:
        importing[0].take_fields = True
    whole = [one.run_all() for one in importing]
    if mirror is not None:
        mirror.note(importing, whole=all(whole))
    if options.move and not run.dry_run and isinstance(layout, StoredLayout):
        reason = "" if all(whole) and is_whole else "not all of it was imported"
        if plan.names_lost:
            reason = reason or f"{counted(plan.names_lost, 'image')} came without the name that it has there"
        _move(run, layout, importing, reason)


def _move(run: Run, layout: StoredLayout, importing: list[RepositoryImport], reason: str) -> None:
    """Remove the source, if all of it is in the store: what was left out exists nowhere else. `reason`: why it
    stays."""
    if not reason and any(True for _ in layout.index.unclear()):
        reason = "not all of it was imported"
    if not reason and not any(one.index().says_all_of(layout.index) for one in importing):
        reason = "what its index.json says beside its rows was not imported"
    if reason:
        run.item(action="stay", source=layout.label, reason=f"{reason}, so it is left in place")
        return
    digests = sorted({digest for one in importing for digest in one.verified})
    for one in importing:
        one.root.maintenance.flush(one.name, one.verified)  # or a power cut could take both away

    def taken() -> None:
        """Raise UsageError if setting the source's index aside has removed the repository's: then the two are one."""
        for one in importing:
            if not one.has_all():
                raise UsageError(f"{layout.label} is the repository {one.name} itself, by another path: it stays")

    remove_layout(layout, digests, taken)
    run.item(action="remove", source=layout.label, blobs=len(digests))


# -- removing what was moved --------------------------------------------------------------------


def refuse_move(source: str) -> None:
    """Raise UsageError if a source can't be moved. Only a layout outside of any store can: clients of a store may rely
    on what would be removed (I6)."""
    if is_bucket(source):
        raise UsageError(f"--move removes image layouts in directories, not in buckets: {source}")
    real = os.path.realpath(source)
    if is_archive(source):
        raise UsageError(f"--move removes image layouts in directories, not archives: {source}")
    if (store := store_above(real)) is not None:
        raise UsageError(f"{source} belongs to the store {store}: import it without --move, then delete it there")


def refuse_served(store: Store, layout: StoredLayout) -> None:
    """Raise UsageError if a layout is a repository of the store by another path, such as a bind mount: its content
    would count as imported, and be removed."""
    here = [_info(layout.driver, key) for key in (layout.name, keys.blobs(layout.name))]
    for root in (root for root in store.roots if not root.by_requests):
        for name in root.catalog.everything():
            there = [_info(root.driver, key) for key in (name, keys.blobs(name))]
            if any(same_file(one, other) for one, other in zip(here, there, strict=True)):
                raise UsageError(f"{layout.label} is the repository {name} of the store {root.label}, by another path")


def _info(driver: Driver, key: str) -> Info | None:
    with suppress(StorageError):
        return driver.stat(key)
    return None


def remove_layout(layout: StoredLayout, digests: Sequence[Digest], taken: Callable[[], None]) -> None:
    """Remove the files of a layout that was imported, and no others.

    Its index is set aside first, so that no reader sees a layout without blobs, and a run that was killed can continue.
    Then `taken` is called; it raises ZotctlError if what was imported is not in the store any more. Raises
    LayoutInvalid if the layout was changed meanwhile.
    """
    driver, name = layout.driver, layout.name
    aside = keys.index_temp(name, MOVED)
    with suppress(NotFound):  # set aside by a run that was cut
        driver.rename(keys.index(name), aside)
    try:
        _require_same(layout, aside)
        taken()
    except ZotctlError:
        _put_back(driver, aside, keys.index(name))
        raise
    for digest in digests:
        _discard(driver, keys.blob(name, digest))
    for key in (keys.layout(name), aside):
        _discard(driver, key)
    folders = [*(keys.blobs_of(name, a) for a in sorted({d.algorithm for d in digests})), keys.blobs(name), name]
    for folder in folders:
        with suppress(NotFound, NotEmpty, StorageError):
            driver.rmdir(folder)


def _require_same(layout: StoredLayout, key: str) -> None:
    """Raise LayoutInvalid if the index was changed. It is read after it was set aside, when no tool can change it."""
    now = parse_index(read(layout.driver, key, LARGEST_INDEX_BYTES))
    if now.render() != layout.index.render():
        raise LayoutInvalid(f"{layout.label} was changed while it was imported; it is left in place, run it again")


def _put_back(driver: Driver, aside: str, key: str) -> None:
    """Put an index back, unless a tool has written a new one meanwhile."""
    try:
        driver.link(aside, key)
    except CannotLink:
        driver.rename(aside, key)
    except Exists:
        pass
    _discard(driver, aside)


def _discard(driver: Driver, key: str) -> None:
    with suppress(NotFound):
        driver.unlink(key)


__all__ = ["ImportOptions", "import_layout"]
