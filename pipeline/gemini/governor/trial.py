"""Whether a refusal that said nothing came from a bucket or from a window: a call is let go and tells; pure state.

A window that is full lets nothing in until its calls are a minute old. A bucket lets one in after a moment.
"""

import math

TRIALS = 2
"""After the first two gates: a second one for buckets so slow that nothing has dripped into them when the first ends.
Later ones would soon meet a window's end."""

TRIAL_GAP_SECONDS = 1.0
"""While the call is out, one more may go so often: refusals come at once, answers of some models take long."""


class Trial:
    """Of one refusal. ``flow`` is what was sent a minute when it came."""

    def __init__(self, flow: float) -> None:
        self.flow = flow
        self._left = TRIALS
        self._sent_at = math.inf
        self._next_at = -math.inf

    def may_go(self, now: float) -> bool:
        """Whether a call may be sent although the minute is thought full."""
        return self._left > 0 and now >= self._next_at

    def go(self, now: float) -> None:
        """It is sent."""
        self._sent_at = min(self._sent_at, now)
        self._next_at = now + TRIAL_GAP_SECONDS

    def accepted(self, *, sent_at: float) -> bool:
        """A call sent then was let in; tells whether that shows a bucket."""
        return sent_at >= self._sent_at

    def refused(self, *, sent_at: float) -> None:
        """A call sent then was not let in."""
        if sent_at >= self._sent_at:
            self._left -= 1
            self._sent_at = math.inf
