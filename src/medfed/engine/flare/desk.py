"""Where a site's process for a job answers the coordinator's letters, one after the other, in a thread of its own."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from nvflare.fuel.f3.cellnet.cell import Cell

from medfed.core.codec import parts
from medfed.core.errors import MedFedError
from medfed.engine.deployed.site import DeployedSite
from medfed.engine.flare.letters import Letter
from medfed.engine.flare.post import Post

_PARTING_SECONDS = 60.0
"""What a letter that is being answered has, when the job ends."""


class Desk:
    """The site at work in one job. coordinator: the cell whose letters are answered; all others are dropped."""

    def __init__(self, site: DeployedSite, cell: Cell, coordinator: str) -> None:
        self._site = site
        self._coordinator = coordinator
        self._letters: SimpleQueue[Letter | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._newest = ""
        self._seen: set[str] = set()
        self._answer: Letter | None = None
        self._closed = False
        self._post = Post(cell, self._received)
        self._thread = threading.Thread(target=self._work, name="medfed-desk", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer what is on the desk, and give the site's files back."""
        self._closed = True
        self._letters.put(None)
        self._thread.join(_PARTING_SECONDS)

    def _received(self, origin: str, letter: Letter) -> None:
        if origin != self._coordinator:
            return
        with self._lock:
            new, newest, answer = letter.number not in self._seen, letter.number == self._newest, self._answer
            if new:
                self._seen.add(letter.number)
                self._newest, self._answer = letter.number, None
        if new:
            if answer is not None:
                self._post.withdraw(answer)
            self._letters.put(letter)
        elif newest and answer is not None:
            self._post.send(origin, answer)

    def _work(self) -> None:
        while (letter := self._letters.get()) is not None:
            answer = self._answered(letter)
            with self._lock:
                current = letter.number == self._newest
                if current:
                    self._answer = answer
            if current:
                self._post.send(self._coordinator, answer)
            else:
                self._post.withdraw(answer)
            del answer
        self._site.close()

    def _answered(self, letter: Letter) -> Letter:
        """The answer to a letter; an empty one after a fault, since the text of an exception would say too much."""
        spool, site = self._site.folder.path / "spool", self._site
        try:
            try:
                message = self._post.opened(self._coordinator, letter, spool, site.largest, lambda: not self._closed)
                answer = site.respond(message)
            except MedFedError as error:
                answer = site.decline(error)
            return self._post.letter(letter.number, parts(answer), self._coordinator)
        except Exception:
            return Letter(letter.number, b"")
