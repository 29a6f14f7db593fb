// What lines and paths do to packets: rates, queues, delays, jitter, loss, cuts. Pure: time is an
// argument, chance is seeded, nothing is read or written. One thread.
//
// A packet leaves its host through the host's uplink, crosses the path to the other host and comes
// in through that host's downlink. Uplink, path and downlink are queues of bounded length that
// serve in order at a rate; what finds a queue full is dropped. On the path a packet is lost with
// some probability, and takes its delay plus a random part of the jitter; packets of one path never
// overtake one another.
//
// Packets come in bursts, because a kernel hands out and takes in many segments of a stream at
// once. Rates, losses and queues count every segment; what is left of a burst travels on in pieces
// of neighbouring segments, delivered when the last of them is through.
#pragma once

#include <cstdint>
#include <queue>
#include <random>
#include <string>
#include <vector>

namespace wan {

using Nanos = std::int64_t;
using Host = std::uint32_t;
inline constexpr Nanos kMillisecond = 1'000'000;
inline constexpr Nanos kSecond = 1'000'000'000;
inline constexpr Nanos kNever = INT64_MAX;
inline constexpr Host kMostHosts = 64;

// A host's line. Settings may change at any time; what is already in a queue keeps its time.
struct Line {
  double up_bits_per_s = 1e9;
  double down_bits_per_s = 1e9;
  Nanos queue = 100 * kMillisecond;  // what the queue at either end holds at most
  bool isolated = false;             // nothing goes out or comes in
};
// From one host to another, one way.
struct Path {
  double bits_per_s = 0;  // 0: as the lines
  Nanos delay = 0;
  Nanos jitter = 0;
  double loss = 0;
  bool cut = false;
};

// Segments of one stream that a host sends at once, all of `segment_bytes` on the wire but the last.
struct Burst {
  Host from = 0;
  Host to = 0;
  std::uint32_t segments = 1;
  std::uint32_t segment_bytes = 0;
  std::uint32_t last_bytes = 0;

  [[nodiscard]] std::uint32_t bytes_of(std::uint32_t segment) const {
    return segment + 1 == segments ? last_bytes : segment_bytes;
  }
};
// Neighbouring segments that got through: when the first and the last of them reach the downlink.
struct Piece {
  std::uint32_t first = 0;
  std::uint32_t count = 0;
  Nanos first_at = 0;
  Nanos last_at = 0;
};
// `count` first segments of the piece that was carried under this ticket. None: all were dropped.
struct Delivery {
  std::uint64_t ticket = 0;
  Host to = 0;
  std::uint32_t count = 0;
  Nanos due = 0;
};

struct Tally {
  std::uint64_t sent_bytes = 0;       // by this host, into its uplink
  std::uint64_t delivered_bytes = 0;  // to this host
  std::uint64_t dropped_full = 0;     // segments that this host sent
  std::uint64_t dropped_lost = 0;
  std::uint64_t dropped_cut = 0;
};

class Network {
 public:
  Network(Host hosts, std::uint64_t seed);

  [[nodiscard]] Host hosts() const { return static_cast<Host>(lines_.size()); }
  [[nodiscard]] Line& line(Host host) { return lines_[host]; }
  [[nodiscard]] Path& path(Host from, Host to) { return paths_[index(from, to)]; }
  [[nodiscard]] const Tally& tally(Host host) const { return tallies_[host]; }
  void reset_tallies() { tallies_.assign(tallies_.size(), Tally{}); }

  // What of the burst reaches the other host's downlink; `pieces` is overwritten. Between two hosts
  // of this network that are not the same.
  void send(const Burst& burst, Nanos now, std::vector<Piece>& pieces);
  // The caller keeps the piece's bytes, and hears of the ticket when they are due.
  void carry(const Burst& burst, const Piece& piece, std::uint64_t ticket);
  // When take() has something to do next.
  [[nodiscard]] Nanos next_due() const;
  bool take(Nanos now, Delivery& delivery);

 private:
  struct Event {
    Nanos at = 0;
    std::uint64_t number = 0;  // ties in the order in which they came
    bool at_downlink = false;
    Burst segments;  // those of the piece
    Nanos last_at = 0;
    std::uint64_t ticket = 0;
    std::uint32_t count = 0;
  };
  struct Later {
    bool operator()(const Event& a, const Event& b) const {
      return a.at != b.at ? a.at > b.at : a.number > b.number;
    }
  };

  [[nodiscard]] std::size_t index(Host from, Host to) const {
    return static_cast<std::size_t>(from) * lines_.size() + to;
  }
  bool leaves(const Burst& burst, std::uint32_t segment, Nanos now, Nanos& at);
  void come_in(Event& event);

  std::vector<Line> lines_;
  std::vector<Path> paths_;
  std::vector<Tally> tallies_;
  std::vector<Nanos> up_free_;
  std::vector<Nanos> down_free_;
  std::vector<Nanos> path_free_;
  std::vector<Nanos> path_last_;  // the latest arrival so far
  std::priority_queue<Event, std::vector<Event>, Later> events_;
  std::uint64_t number_ = 0;
  std::mt19937_64 random_;
};

}  // namespace wan
