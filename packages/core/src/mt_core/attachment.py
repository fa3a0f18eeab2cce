"""Puts an adapter into a backbone and works out which streams flow where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from .adapter import Adapter, StreamModule
from .backbone import Encoder
from .errors import PluginError
from .site import Join, Role, Site, Tap
from .streams import Stream, Streams


class Attachment:
    """An encoder with an adapter in it: which streams run after each site, and how to read each level's features.

    Attributes:
        tasks: every task, in the user's order.
        layouts: path of a site -> the streams after it when all tasks run.
        replaced: paths of the sites where a module of the adapter stands.
        taps: path of a tap -> the streams it hands out for the tasks that are selected.
    """

    def __init__(
        self,
        encoder: Encoder,
        sites: Sequence[Site],
        layouts: dict[str, Streams],
        tasks: tuple[str, ...],
        replaced: Sequence[str],
    ) -> None:
        self.encoder, self.sites, self.layouts, self.tasks = encoder, sites, layouts, tasks
        self.replaced = tuple(replaced)
        self.sources = _sources(sites)
        self.select(tasks)

    def select(self, tasks: Iterable[str]) -> None:
        """Run only what these tasks need, in one pass from the end: a stream that nobody reads is not computed.

        Raises:
            ValueError: if a task was not there when the adapter was attached, or none is named.
        """
        selected = tuple(tasks)
        if not selected or not set(selected) <= set(self.tasks):
            raise ValueError(f"cannot select {list(selected) or 'no task'}: attached for {list(self.tasks)}")
        self.selected = tuple(task for task in self.tasks if task in selected)
        needed = self._needed()
        self.taps: dict[str, Streams] = {}
        for site in self.sites:
            self._bind(site, needed)
        index = [[streams.serving(task) for streams in self.taps.values()] for task in self.selected]
        self._serving = dict(zip(self.selected, index, strict=True))
        self._counts = [len(streams) for streams in self.taps.values()]

    def features(self, levels: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """Sort stacked features by task. Level l: (S_l * B, C, H, W) -> {task: [(B, C, H, W), ...]}"""
        streams = [x.unflatten(0, (count, -1)) for x, count in zip(levels, self._counts, strict=True)]
        return {task: [x[i] for x, i in zip(streams, index, strict=True)] for task, index in self._serving.items()}

    def _needed(self) -> dict[str, Streams]:
        """The streams that somebody reads after each site, from the last site back to the image."""
        wanted: dict[str, set[Stream]] = {path: set() for path in self.layouts}
        for site in reversed(self.sites):
            for source, streams in zip(self.sources[site.path], self._inputs(site, wanted), strict=True):
                wanted[source] |= set(streams)
        return {path: self.layouts[path].only(streams) for path, streams in wanted.items()}

    def _inputs(self, site: Site, wanted: dict[str, set[Stream]]) -> list[Streams]:
        """The streams a site has to be given, one layout for each of the paths it reads."""
        after = self.layouts[site.path].only(wanted[site.path])
        arriving = [self.layouts[source] for source in self.sources[site.path]]
        module = self.encoder.get_submodule(site.path)
        if isinstance(module, StreamModule):
            return [module.needs(after)]
        if isinstance(module, Tap):
            served = {arriving[0][arriving[0].serving(task)] for task in self.selected}
            return [arriving[0].only({*served, *after})]
        return [layout.only({layout[i] for i in layout.parents(after)}) for layout in arriving]

    def _bind(self, site: Site, needed: dict[str, Streams]) -> None:
        module, after = self.encoder.get_submodule(site.path), needed[site.path]
        arriving = [needed[source] for source in self.sources[site.path]]
        if isinstance(module, Join):
            module.bind(arriving[0], arriving[1], after)
        elif isinstance(module, Tap):
            served = {arriving[0][arriving[0].serving(task)] for task in self.selected}
            self.taps[site.path] = arriving[0].only(served)
            module.bind(arriving[0], self.taps[site.path], after)
        elif isinstance(module, StreamModule):
            module.bind(arriving[0], after)


def attach(adapter: Adapter, encoder: Encoder, tasks: Sequence[str]) -> Attachment:
    """Put `adapter` into `encoder`, in place, and freeze everything else.

    Raises:
        PluginError: if the adapter answers a site with something that cannot stand there, or forks streams in a way
            that cannot be (merging two, serving a task twice, losing one), naming the site; or if the encoder lists
            its sites wrongly.
    """
    encoder.requires_grad_(False)
    layouts, sites = {"": Streams.trunk(tasks)}, list[Site]()
    previous, replaced, stands_for = "", list[str](), dict[str, str]()
    every = encoder.sites()
    stages = 1 + max((site.stage for site in every), default=0)
    for listed in every:
        if replaced and listed.path.startswith(replaced[-1] + "."):
            stands_for[listed.path] = replaced[-1]  # hidden: whoever reads it reads what stands in its place
            continue
        reads = previous if listed.reads is None else stands_for.get(listed.reads, listed.reads)
        if reads not in layouts:
            raise PluginError(f"{type(encoder).__name__}: {listed.path} reads {reads!r}, which is no site before it")
        site = replace(listed, reads=reads, stages=stages)
        try:
            before = encoder.get_submodule(site.path)
        except AttributeError as error:
            raise PluginError(
                f"{type(encoder).__name__} lists the site {site.path!r}, but has no module there"
            ) from error
        try:
            layouts[site.path] = _place(adapter, encoder, site, layouts[reads], layouts[previous])
        except ValueError as error:
            raise PluginError(f"{type(adapter).__name__} at {site.path} ({site.role}): {error}") from error
        if encoder.get_submodule(site.path) is not before:
            replaced.append(site.path)
        previous = site.path
        sites.append(site)
    adapter.attached(encoder)
    return Attachment(encoder, sites, layouts, tuple(tasks), replaced)


def _place(adapter: Adapter, encoder: Encoder, site: Site, before: Streams, beside: Streams) -> Streams:
    """Ask about one site and put the answer there: the streams after it."""
    module = encoder.get_submodule(site.path)
    if isinstance(module, Join):
        return module.meet(before, beside)
    if isinstance(module, Tap):
        return before.carried
    answer = adapter.adapt(site, module, before)
    if answer is None:
        return before
    if not isinstance(answer, nn.Module):
        raise PluginError(
            f"{type(adapter).__name__} answered site {site.path} with {answer!r}; "
            f"expected a module, the site's own module, or None"
        )
    if answer is module:
        module.requires_grad_(True)
        return before
    put(encoder, site.path, answer)
    if not isinstance(answer, StreamModule):
        return before
    if answer.full_before != before:
        raise ValueError(f"{type(answer).__name__} was made for the streams {answer.full_before}, but {before} arrive")
    before.check_fork(answer.full_after)
    return answer.full_after


def put(root: nn.Module, path: str, module: nn.Module) -> None:
    """Replace the submodule at `path`."""
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)


def _sources(sites: Sequence[Site]) -> dict[str, list[str]]:
    """For every site (with its `reads` settled), the paths it reads: one, or two for a join."""
    sources, previous = dict[str, list[str]](), ""
    for site in sites:
        reads = site.reads or ""
        sources[site.path] = [reads, previous] if site.role is Role.join else [reads]
        previous = site.path
    return sources
