// The collectives of one peer as a pure state machine: virtual synchrony, the commit rule, the
// plans.
//
// Thread: none of its own; owned and called by one thread (the reactor, or a test).
// I/O: none. Frames come in through place()/deliver(), go out as actions. Time is an argument.
// Ownership: input and output buffers belong to the core from submit() until the op's Complete
//   action has been taken; it never frees them. Payload spans of Send actions point into those
//   buffers, or are empty when `owned` holds the bytes. They stay valid until the shell has sent or
//   purged them: before every Complete, and before an op runs again in a new view, the core emits
//   Release(op), on which the shell must drop what it still queues for that op (finishing a frame
//   half sent from a copy) and move what it still receives into its output to memory of its own.
// Failure: peers' mistakes are Errors of deliver(), or Blame actions when a frame was kept first
//   (the shell ends that link); an op's own failure is the code in its Complete.
#pragma once

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
#include "atoll/collective/view.h"
#include "atoll/wire/frame.h"

namespace reef {

struct OpRequest {
  OpId id = 0;  // chosen by the caller, unique
  Channel channel = 0;
  OpKind kind = OpKind::barrier;
  Plan plan = Plan::none;  // none for an all-reduce: the core chooses from size and members
  DType dtype = DType::f32;
  std::uint64_t count = 0;
  PeerId root;                      // broadcast
  PeerId partner;                   // exchange
  Sequence tag = 0;                 // exchange: matched with the partner's, apart from the channel
  std::span<const std::byte> in;    // count elements (broadcast: only the root's is read)
  std::span<std::byte> out;         // count elements; must not overlap in
  std::uint32_t chunk_bytes = 0;    // 0: default
  Nanos deadline = kNever;          // absolute
};

// --- actions -----------------------------------------------------------------------------------
struct Send {
  PeerId to;
  FrameHeader header;
  std::span<const std::byte> payload;  // into an op's buffer, unless `owned` holds it
  std::vector<std::byte> owned;        // small payloads (START)
  OpId op = 0;                         // whose buffer; 0 for notices
};
struct Release {  // drop every reference to this op's buffers, now; the op may run again
  OpId op = 0;
};
struct Complete {
  OpId op = 0;
  Code code = Code::ok;
  Epoch epoch = 0;        // the view whose members contributed to the result
  Sequence sequence = 0;  // its number on the channel
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
using Action = std::variant<Send, Release, Complete, Fenced, Installed, Blame>;

struct CoreOptions {
  std::uint32_t chunk_bytes = limits::kDefaultChunkBytes;
  std::size_t eager_bytes = limits::kEagerBytes;
  // An all-reduce of at most this many bytes uses the direct plan: two exchanges, whatever the
  // number of members. A larger one goes around the ring.
  std::uint64_t direct_max_bytes = 1u << 20;
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

  [[nodiscard]] const View& view() const;
  [[nodiscard]] Progress progress() const;
  struct Tally {  // monotone counters
    std::uint64_t stale_frames = 0;
    std::uint64_t early_frames = 0;
    std::uint64_t ops_committed = 0;
    std::uint64_t ops_failed = 0;
    std::uint64_t ops_rerun = 0;
  };
  [[nodiscard]] const Tally& tally() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace reef
