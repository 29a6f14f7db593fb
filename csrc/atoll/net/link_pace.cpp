// How fast a link takes data: what its pacer says. All else that it sends is little, or has its own bounds.
#include <algorithm>

#include "atoll/net/link.h"

namespace reef {

bool Link::expect(double bytes_per_s) {
  const bool news = pacer_.expect(path().least_round_trip_s > 0 ? bytes_per_s : 0);
  let_go();
  return news;
}

void Link::unleash(bool free) {
  if (free == free_) return;
  free_ = free;
  let_go();
}

// What was held back tries again.
void Link::let_go() {
  if (held_until_ == kNever) return;
  held_until_ = kNever;
  data_waiting();
}

bool Link::pull_in_time(OutFrame& frame) {
  const double pace = pace_bytes_per_s();
  if (pace == 0) return owner_.pull(*this, frame);
  const Nanos now = monotonic_now();
  if (!budget_.open(pace, now)) {
    held_until_ = budget_.opens_at(pace);
    owner_.keeps_pace(*this, held_until_);
    return false;
  }
  if (!owner_.pull(*this, frame)) return false;
  budget_.spend(frame.size());
  return true;
}

Nanos Link::keep_pace(Nanos now) {
  if (stage_ != Stage::up || pacer_.bytes_per_s() == 0) return kNever;
  if (now >= held_until_) let_go();
  return held_until_;
}

bool Link::observe_path(Nanos now) {
  if (stage_ != Stage::up || pacer_.bytes_per_s() == 0) return false;
  pacer_.observe(path(), free_ ? kNever : sending_since_, now);
  if (sending_since_ == kNever) return false;
  if (renewed_at_ == kNever || now - renewed_at_ >= kRenewEvery) {
    renewed_at_ = now;
    for (Slot& slot : slots_) {
      if (slot.connection) slot.connection->renew();
    }
  }
  return true;
}

// Of those that live. The shortest round trip that any has seen is the path's own.
PathCounts Link::path() const {
  PathCounts all;
  std::uint32_t counted = 0;
  for (const Slot& slot : slots_) {
    if (!slot.connection) continue;
    const PathCounts one = slot.connection->path();
    if (one.least_round_trip_s == 0) continue;
    all.sent_bytes += one.sent_bytes;
    all.resent_bytes += one.resent_bytes;
    all.acked_bytes += one.acked_bytes;
    all.round_trip_s += one.round_trip_s;
    if (counted++ == 0 || one.least_round_trip_s < all.least_round_trip_s) {
      all.least_round_trip_s = one.least_round_trip_s;
    }
  }
  if (counted > 0) all.round_trip_s /= counted;
  return all;
}

}  // namespace reef
