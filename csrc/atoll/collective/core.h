// The collectives of one peer as a pure state machine: virtual synchrony, the commit rule, the
// plans.
//
// Thread: none of its own; owned and called by one thread (the reactor, or a test).
// I/O: none. Frames come in through place()/deliver(). Notices go out as Send actions; data waits
//   until the shell asks for it, when a link has room (DataReady, pull()): so it is made late, and the
//   most urgent op's goes first. Time is an argument.
// Ownership: input and output buffers belong to the core from submit() until the op's Complete
//   action has been taken; it never frees them. Payload spans point into those buffers, unless
//   `owned` or `keep` holds the bytes. They stay valid, and unchanged but by what follows from the
//   receiver's having the frame, until the Release, because a link may have to send a frame again:
//   before every Complete, when an op fails, and before it runs again in a new view, the core emits
//   Release(op), on which the shell must drop what it still holds of that op (finishing a frame half
//   sent from a copy) and move what it still receives for it to memory of its own.
// Failure: peers' mistakes are Errors of deliver(), or Blame actions when a frame was kept first
//   (the shell ends that link); an op's own failure is the code in its Complete.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "atoll/base/limits.h"
#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/collective/request.h"
#include "atoll/collective/view.h"
#include "atoll/wire/frame.h"

namespace reef {

// --- actions -----------------------------------------------------------------------------------
struct Send {
  PeerId to;
  FrameHeader header;
  std::span<const std::byte> payload;  // into an op's buffer, unless held by one of the next two
  std::vector<std::byte> owned;        // small payloads (START)
  std::shared_ptr<const void> keep;    // what a plan has made
  OpId op = 0;                         // whose data; 0 for notices
};
struct DataReady {  // there is data for this peer: pull() it
  PeerId peer;
};
struct Release {  // drop every reference to this op's buffers, now; the op may run again
  OpId op = 0;
};
struct Summary {  // of an op that committed
  Plan plan = Plan::none;
  Rank members = 0;
  Rank contributors = 0;    // reductions: members whose weight is not 0
  double total_weight = 0;  // reductions
  EncodeReport encoded;     // what this member's encoders met
  std::vector<double> weights;       // reductions: by rank
  std::vector<std::uint64_t> notes;  // by rank
  std::uint32_t chunk_bytes = 0;
};
struct Complete {
  OpId op = 0;
  Code code = Code::ok;
  Epoch epoch = 0;        // the view whose members contributed to the result
  Sequence sequence = 0;  // its number on the channel
  Summary summary;
};
struct Fenced {
  std::uint64_t attempt = 0;
  Epoch epoch = 0;  // installed epoch
  Progress progress;
};
struct Installed {  // this member has switched (or, if it is absent from the view, has finished)
  Epoch epoch = 0;
  bool member = true;
};
struct Blame {  // a frame kept from this peer turned out to break the protocol: end the link
  PeerId peer;
  Error error;
};
struct Offered {  // a member's send that nobody receives yet, on a channel that is listened to
  PeerId peer;
  Channel channel = 0;
  Sequence tag = 0;
};
using Action =
    std::variant<Send, DataReady, Release, Complete, Fenced, Installed, Blame, Offered>;

// The same on all members.
struct CoreOptions {
  std::uint32_t chunk_bytes = 0;  // 0: from the vector's size
  std::size_t eager_bytes = limits::kEagerBytes;
  // Up to so many members each tells each that it is done; more do it along a tree.
  Rank flat_done_members = 8;
  // All-reduces whose plan is left open, without a measured topology, or where its links are so fast
  // that processors are the bottleneck: up to so many bytes (and members) everybody sends everything
  // to everybody; with more members, up to so many bytes doubling; else direct, with a codec or up
  // to so many bytes of the vector (unmeasured) or of a member's part (fast); else the ring.
  std::uint64_t mesh_max_bytes = 16u << 10;
  Rank mesh_max_members = 8;
  std::uint64_t doubling_max_bytes = 16u << 10;
  std::uint64_t direct_max_bytes = 32u << 20;
  std::uint64_t direct_max_part_bytes = 128u << 10;
};

class Core {
 public:
  explicit Core(PeerId self, CoreOptions options = {});
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // Queues an op on its channel; it starts when those before it have completed, a view is installed
  // and no fence forbids it. Refuses (invalid) sizes, overlaps, unknown dtypes, too many channels.
  Status submit(const OpRequest& request, Nanos now);
  // Fails the op on all members (code aborted) unless it is already done here. Unknown: no effect.
  void abort(OpId op, Nanos now);
  // From now on an Offered tells of every send on this channel that comes before its recv, and at
  // once of those that wait: for who receives from whoever sends first. Once for each of them.
  void listen(Channel channel);
  // Completes all ops with `closed`; nothing may be called afterwards but next().
  void close();

  // A fence answers with one Fenced action. drain: no op starts from now on until an install.
  // abort: moreover everything in the present epoch freezes. A later fence overrides an earlier
  // one.
  void fence(std::uint64_t attempt, Change kind, Nanos now);
  // Installs `view`. abort: at once; ops before `starts` commit, the others run again. drain: when
  // all ops before `starts` have committed in the present view. An epoch that is not newer than the
  // installed one is ignored. A peer absent from `view` ends up in no view (drain: after its last
  // op).
  void install(const View& view, const Starts& starts, Change kind, Nanos now);

  // Where the payload of this frame should be received: inside an op's output buffer, or empty when
  // the shell must receive it into memory of its own. `op` (out) is then the op that owns it.
  std::span<std::byte> place(const PeerId& from, const FrameHeader& header, OpId& op);
  // A whole frame (start, data or done) has arrived; `payload` is where place() said, or the
  // shell's.
  Status deliver(const PeerId& from, const FrameHeader& header,
                 std::span<const std::byte> payload, Nanos now);
  // The link to `peer` is gone: exchanges with it fail (peer_lost), its early frames are dropped.
  // Collectives wait for the coordinator's verdict.
  void link_down(const PeerId& peer, Nanos now);
  // Deadlines. Returns when to call again at the latest; submit and install may bring one forward.
  Nanos tick(Nanos now);

  // The next action, in order; false when there is none.
  bool next(Action& action);
  // The next data frame for this peer, of its most urgent op; false when there is none for now: a
  // DataReady will tell.
  bool pull(const PeerId& to, Send& frame);

  [[nodiscard]] const View& view() const;
  [[nodiscard]] Progress progress() const;
  struct Tally {  // monotone counters
    std::uint64_t stale_frames = 0;
    std::uint64_t early_frames = 0;
    std::uint64_t ops_committed = 0;
    std::uint64_t ops_failed = 0;
    std::uint64_t ops_rerun = 0;
    // Of ops, handed to links, by how they were encoded; what is no fp32 vector travels as it is.
    std::array<std::uint64_t, kCodecs> payload_bytes{};
  };
  [[nodiscard]] const Tally& tally() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace reef
