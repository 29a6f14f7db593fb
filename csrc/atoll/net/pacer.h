// How fast the links of one member send over long paths. Pure; one thread.
//
// A line that several links share is full when each sends its part of it, and no faster: what is sent beyond
// that waits in some queue until the queue overflows, and what the far line's queue throws away has used up
// the near line. Congestion control finds its pace by overflowing the queue, each connection
// for itself, and finds a different one for each; so links begin at what the measured lines leave to
// each, and from there follow what arrives: up while no queue grows, down when one does or
// packets are lost in numbers. Links that are busy together do that together (LinePacer), as an op is
// over when the slowest of them is done; one that is busy alone does it for itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "atoll/base/time.h"
#include "atoll/net/path.h"

namespace reef {

// What a link's path did in an interval in which the link always had something to send.
struct PaceSample {
  double delivered_bytes_per_s = 0;
  double lost = 0;     // of the bytes sent
  double queue_s = 0;  // of a round trip, in queues
  double least_round_trip_s = 0;
};

class Pacer {
 public:
  // What the measured lines leave to the link; 0: nothing is known, send as fast as may be. Keeps what
  // was learned since, and returns false, unless the new figure says something else.
  bool expect(double bytes_per_s);
  // What the kernel has counted so far, of all connections of the link together. `sending_since`: from
  // when on it always had something to send; kNever: it has nothing.
  void observe(const PathCounts& counts, Nanos sending_since, Nanos now);
  // Of the interval before the last observe(), if it says something.
  [[nodiscard]] const std::optional<PaceSample>& sample() const { return sample_; }

  // After observe(), one of these. `times`: of what is expected, what the line carries.
  void follow_alone(Nanos now);
  // `queue_s`: time in queues that the line's other links do not share.
  void follow_line(double times, double queue_s);
  void rest(double times);

  // Bytes a second for the whole link; 0: as fast as may be.
  [[nodiscard]] double bytes_per_s() const { return rate_; }
  [[nodiscard]] double expected_bytes_per_s() const { return expected_; }
  // What arrived of late while there was always something to send; 0: not seen yet.
  [[nodiscard]] double delivered_bytes_per_s() const { return delivered_; }

 private:
  void go_at(double bytes_per_s);

  double expected_ = 0;
  double rate_ = 0;
  double share_ = 1;        // of its part of the line, what the far line takes
  double good_ = 0;         // alone it went so fast of late, or 0: not seen
  double delivered_ = 0;
  bool alone_ = false;
  bool searching_ = false;  // alone, and no queue was seen yet
  std::optional<PaceSample> sample_;
  PathCounts seen_;
  Nanos seen_at_ = kNever;
  Nanos lowered_at_ = kNever;
};

// What one member's line carries, as a multiple of what is expected of its links. It is kept full by a short queue:
// the pace is what arrives, and a little more or less as that queue is shorter or longer than wanted.
class LinePacer {
 public:
  // Other figures: begin anew.
  void reset();
  // All links with a pace, each of which has just observed.
  void follow(std::span<Pacer* const> links, Nanos now);
  [[nodiscard]] double times() const { return times_; }

 private:
  void follow_all(const PaceSample& together, double expected_bytes_per_s);

  double arrives_ = 1;  // a multiple, as times_
  double times_ = 1;
  bool searching_ = true;  // no queue was seen yet
};

// What may go at once at some pace, so that it is kept on average over some milliseconds: a burst is
// cheaper than as many small writes, and the network's queues are longer.
class Budget {
 public:
  // Whether something may go now. What goes may be larger than what is left: the next waits longer.
  bool open(double bytes_per_s, Nanos now);
  void spend(std::size_t bytes) { left_bytes_ -= static_cast<double>(bytes); }
  // When it is closed: from when on a good piece may go.
  [[nodiscard]] Nanos opens_at(double bytes_per_s) const;

 private:
  double left_bytes_ = 0;
  Nanos counted_at_ = kNever;
};

// How often to observe.
inline constexpr Nanos kPaceEvery = 100 * kMillisecond;

}  // namespace reef
