// Measures a link: its round trip, and the rate from here to there. Both sides as pure state
// machines; docs/collectives.md ("Probe") has the story, docs/wire.md the frames.
//
// Thread: none of their own; the reactor's. I/O: none; actions come out of next().
//
// The asking side sends a few empty PROBE frames, one after the other, and takes the shortest round
// trip. Then it sends filler for a bounded time and of bounded length. Never more of it is under
// way than a window that begins small and grows by three times what has arrived: a slow line is
// never left with seconds of filler in its queues. The other side measures what it received, filler
// and all else on the link, over that half of the burst in which most came, and says so at the end.
//
// Bounds: one probe of a link at a time on the asking side. On the answering side a record of fixed
// size for each peer; a peer that asks more often than kMaxProbesPerSecond is not answered, and one
// that sends more filler than kMaxProbeBytes breaks the protocol.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <variant>

#include "atoll/base/ids.h"
#include "atoll/base/limits.h"
#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/wire/frame.h"

namespace reef {

// `phase` of PROBE and PROBE_REPLY.
enum class ProbePhase : std::uint16_t { ping = 0, filler = 1, last = 2 };

struct ProbeRequest {
  OpId op = 0;  // also the probe's number on the wire
  PeerId peer;
  std::uint32_t pings = 5;
  Nanos duration = 100 * kMillisecond;  // of the burst; five to eight round trips if that is longer
  std::uint64_t max_bytes = limits::kMaxProbeBytes;
  Nanos deadline = kNever;  // of the whole probe
};
struct ProbeSend {
  PeerId to;
  FrameHeader header;
  bool filler = false;                 // in the lowest lane
  std::span<const std::byte> payload;  // of static memory; a reply's 16 bytes are in `reply`
  std::array<std::byte, kProbeReplyBytes> reply{};
};
struct ProbeEnd {
  OpId op = 0;
  PeerId peer;
  Code code = Code::ok;
  std::string message;
  double bytes_per_s = 0;
  Nanos round_trip = 0;
};
using ProbeAction = std::variant<ProbeSend, ProbeEnd>;

class Prober {
 public:
  // Refuses (invalid) a second probe of the same link.
  Status start(const ProbeRequest& request, Nanos now);
  [[nodiscard]] bool owns(OpId op) const;
  void abort(OpId op);
  void close();

  // A PROBE_REPLY of `from`. Late ones mean nothing; impossible ones are errors.
  Status deliver(const PeerId& from, const FrameHeader& header, std::span<const std::byte> payload,
                 Nanos now);
  void link_down(const PeerId& peer);
  // Deadlines and the ends of bursts. Returns when to call again at the latest.
  Nanos tick(Nanos now);

  bool next(ProbeAction& action);

 private:
  struct Probe {
    ProbeRequest request;
    std::uint32_t pinged = 0;
    Nanos asked = 0;  // when the last ping was sent
    Nanos round_trip = kNever;
    Nanos burst_began = kNever;
    std::uint64_t sent = 0;
    std::uint64_t arrived = 0;
    bool last_sent = false;
  };
  using Probes = std::map<PeerId, Probe>;

  static Nanos burst(const Probe& probe);
  void ping(Probe& probe, Nanos now);
  void fill(Probe& probe, Nanos now);
  void send(const Probe& probe, ProbePhase phase, std::size_t bytes);
  void finish(Probes::iterator at, Code code, std::string message, double bytes_per_s = 0);

  Probes probes_;
  std::deque<ProbeAction> actions_;
};

class ProbeAnswers {
 public:
  // A PROBE of `from`; `link_bytes`: all that was received on its link so far.
  Status deliver(const PeerId& from, const FrameHeader& header, std::uint64_t link_bytes,
                 Nanos now);
  void link_down(const PeerId& peer) { peers_.erase(peer); }
  bool next(ProbeAction& action);

 private:
  struct Mark {
    Nanos at = 0;
    std::uint64_t link_bytes = 0;
  };
  struct Peer {
    Nanos window_began = 0;              // of counting what it asks
    std::uint32_t asked = 0;             // probes and pings in that window
    std::uint64_t probe = 0;             // the burst that is being received; 0: none
    std::uint64_t received = 0;          // filler
    std::uint64_t told = 0;              // filler that it was told of
    std::optional<std::uint64_t> total;  // filler in all, known from the last frame
    std::array<Mark, 32> marks{};
    std::size_t marked = 0;
    std::size_t every = 1;  // frames between marks
    std::size_t frames = 0;
  };

  struct Stretch {
    std::uint64_t bytes = 0;
    Nanos nanos = 0;
  };

  static Stretch best_half(const Peer& peer, Mark last);
  bool may_ask(Peer& peer, Nanos now);
  static void mark(Peer& peer, Mark mark);
  void reply(const PeerId& to, const FrameHeader& header, ProbePhase phase, std::uint64_t bytes,
             Nanos nanos);

  std::map<PeerId, Peer> peers_;
  std::deque<ProbeAction> actions_;
};

}  // namespace reef
