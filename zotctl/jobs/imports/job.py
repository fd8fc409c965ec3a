"""`import-layout`: copies image layouts of any tool into the store, beside any number of servers.

Repository by repository, what is missing is copied and hashed (`imports.repository`). No reader sees anything before
the commit, so a run may be killed at any moment, and the next one skips what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial

from zotctl.config import is_bucket
from zotctl.errors import (
    LayoutInvalid,
    NoSpace,
    NoSuchStore,
    Unavailable,
    UsageError,
    ZotctlError,
    quoted,
)
from zotctl.jobs.finding import DAMAGE_KINDS, Finding
from zotctl.jobs.imports.archives import ArchiveContent, ArchiveListing, L, read_archive, staged
from zotctl.jobs.imports.distribution import DistributionTree, tree_in, tree_of_bucket
from zotctl.jobs.imports.mirror import Mirror, SourceTree, refuse_mirror, source_tree
from zotctl.jobs.imports.moving import info_of, move, refuse_move, refuse_served
from zotctl.jobs.imports.plan import ImportOptions, plan_import
from zotctl.jobs.imports.repository import RepositoryImport
from zotctl.jobs.imports.sources import (
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
    valid_name,
)
from zotctl.jobs.report import counted
from zotctl.jobs.run import Run
from zotctl.storage import keys
from zotctl.storage.distribution import ROOT, is_distribution
from zotctl.storage.driver import Driver
from zotctl.storage.graph import ManifestGraph
from zotctl.storage.history import Timeline
from zotctl.storage.index import REPOSITORY
from zotctl.storage.references import Reference
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
            _tree(run, BucketSource(root.protocol, tree), source, options, tree.timeline).take(tree.names())
            return
        _refuse_tags(source, options)
        refuse_own(source, [root.label for root in run.store.roots])
        driver, names = in_bucket(root, source)
        past = driver.timeline if names != [THE_LAYOUT] else lambda name: None
        _tree(run, driver, source, options, past).take(names)


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
    _tree(run, driver, source, options, lambda name: past_beside(source, name, run.clock)).take(names)


def _import_distribution(run: Run, source: str, options: ImportOptions) -> None:
    tree = tree_in(run, source, options.tags)
    _tree(run, tree, source, options, tree.timeline).take(tree.names())


@dataclass(frozen=True)
class _Tree:
    """What is imported: the layouts of a directory or a bucket.

    `source`: its name in messages. `past`: the history of a layout in the store that it lies in. `require` raises
    Unavailable if the source is away.
    """

    run: Run
    driver: Driver
    source: str
    options: ImportOptions
    past: Callable[[str], Timeline | None]
    require: Callable[[], None]

    def take(self, names: list[str]) -> None:
        """Import the layouts `names`."""
        mirror = self._take_alone() if names == [THE_LAYOUT] else self._take_all(names)
        if mirror is not None and not _is_away(self.run):
            mirror.finish()

    def _take_alone(self) -> Mirror | None:
        """Import the one layout that the source is. None: there is no mirror, or nothing for it to do."""
        layout = self._layout(THE_LAYOUT, self.source)
        _propose(layout, proposed_by_path(self.source), self.options)
        mirror = self._mirror(None)
        if mirror is not None and mirror.is_unchanged(layout):
            return None
        self._import(THE_LAYOUT, layout, mirror)
        return mirror

    def _take_all(self, names: list[str]) -> Mirror | None:
        """Import the layouts of a tree, and return the mirror that says what goes, if one is wanted."""
        _check_tree(self.source, names, self.options)
        tree = source_tree(self.driver, names, self.options)
        mirror = self._mirror(tree)
        if mirror is not None and tree is not None:
            mirror.survey(tree)
        is_alone = len(names) == 1 and not (self.options.repo and self.options.all)
        is_alone = is_alone and not (self._is_store() or self.options.mirror)
        for name in names:
            self.run.check()
            if _is_away(self.run):
                break
            if mirror is not None:
                mirror.begin()
            with nullcontext() if is_alone else _guarded(self.run, name, self.require):
                self._take_below(name, mirror, fixed=not is_alone)
        return mirror

    def _take_below(self, name: str, mirror: Mirror | None, *, fixed: bool) -> None:
        layout = self._layout(name, f"{self.source}/{name}")
        if not _is_named(self.run, layout, name, self.options, fixed=fixed):
            return
        if mirror is None or not mirror.is_unchanged(layout):
            self._import(name, layout, mirror)

    def _layout(self, name: str, label: str) -> StoredLayout:
        layout = read_layout(self.driver, name, label, half_moved=self.options.move)
        layout.require = self.require
        return layout

    def _import(self, name: str, layout: StoredLayout, mirror: Mirror | None) -> None:
        layout.past = self.past(name)
        _import_one(self.run, layout, self.options, mirror)

    def _mirror(self, tree: SourceTree | None) -> Mirror | None:
        return Mirror(self.run, self.source, self.options, self.require, tree) if self.options.mirror else None

    def _is_store(self) -> bool:
        is_other = isinstance(self.driver, BucketSource | DistributionTree)
        return is_other or info_of(self.driver, keys.HIDDEN) is not None


def _tree(
    run: Run, driver: Driver, source: str, options: ImportOptions, past: Callable[[str], Timeline | None]
) -> _Tree:
    return _Tree(run, driver, source, options, past, requirement(driver, source))


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
        move(run, layout, importing, reason)


__all__ = ["ImportOptions", "import_layout"]
