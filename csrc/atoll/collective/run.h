// One run of one op between the members of one view: who has said START and DONE, what may be sent
// to whom, and whether the op may commit. An op that a lost member interrupts gets a new run in the
// next view. A pair exchange is a run with one other member.
//
// A member is `good` when its plan is complete and all STARTs are here and equal; it then says
// DONE(0). A member fails for a reason of its own, or because it hears another's DONE(reason): it
// then says DONE(reason) itself, even after DONE(0). Committed: good, and DONE(0) heard from all
// others; of a send, the receiver says it and the sender waits for it. Committed as failed: failed, and DONE(reason) heard from all others, so that all of them
// know.
//
// In a large view DONE(0) would be N * (N-1) frames. There a member tells its parent in a binary
// tree over the ranks when it and all below it are good (DONE(branch)), and the root lets all know
// down the same tree (DONE(everyone)): 2 * (N-1) frames. Failures are rare, and go to all as ever.
//
// Thread: the core's. Ownership: the plan; buffers are the op's and must outlive the run, or until
// drop_plan(). Failure: a frame that breaks the protocol is `wrong`, and changes nothing.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "atoll/base/limits.h"
#include "atoll/collective/core.h"
#include "atoll/collective/plans/plan.h"

namespace reef {

// In the `phase` of a DONE. The gravest one that any member gives is the op's outcome.
enum class Reason : std::uint16_t {
  none = 0,
  mismatch = 1,
  deadline = 2,
  aborted = 3,
  root_lost = 4,
  view_changed = 5,
};
inline constexpr std::uint16_t kLastReason = 5;
// In the `phase` of a DONE that says of more than the sender that it holds the result.
inline constexpr std::uint16_t kBranchDone = 0x8000;
inline constexpr std::uint16_t kEveryoneDone = 0x8001;
[[nodiscard]] Code code_of(Reason reason);
// view_changed before all others, then the smaller; any before none.
[[nodiscard]] Reason graver(Reason a, Reason b);

// What one member has been sent before its STARTs came, over all ops. A quarter of what it keeps:
// it may still hold as much again of the view before.
struct EagerLoad {
  static constexpr std::size_t kMaxBytes = limits::kMaxEarlyBytesPerPeer / 4;
  static constexpr std::size_t kMaxFrames = limits::kMaxEarlyFramesPerPeer / 4;
  std::size_t bytes = 0;
  std::size_t frames = 0;
};

class Run;

// What a run sees of the core around it.
struct RunSite {
  View view;
  Rank self = 0;
  std::size_t eager_bytes = 0;
  Rank flat_done_members = 0;    // larger views tell of DONE(0) along a tree
  std::vector<EagerLoad> eager;  // by rank
  std::deque<Action> actions;
  std::vector<std::vector<Run*>> lanes;  // by rank: runs with data for it, the most urgent first

  void enter(const View& next, Rank rank);
  void offer(Rank to, Run& run);
  void withdraw(Run& run);
};

enum class Verdict : std::uint8_t {
  taken,
  unclear,  // does not fit, but not all STARTs are here: the op may be mismatched. Keep the frame
  wrong,
};

class Run final : private Outbox {
 public:
  struct Terms {
    Channel wire_channel = 0;
    Sequence sequence = 0;
    OpId op = 0;
    OpDescription description;
    std::int32_t priority = 0;
    bool pair = false;
    Rank partner = 0;  // of a pair
    bool tells = true;  // DONE(0). Not who sends to one member, for that has everything by then
    bool hears = true;  // waits for others' DONE(0). Not who receives from one
  };

  explicit Run(RunSite& site) : site_(site) {}
  ~Run() = default;
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // What the members bring, for the plan of the run that begins next.
  const Weights& expect(Rank members, Rank self, double own);
  // Sends START to the others, then offers what the plan can send. No plan: a barrier, or a failed
  // op.
  void begin(const Terms& terms, std::unique_ptr<PlanRun> plan);
  // Says DONE(reason) to the others and drops the plan. Not twice in one run.
  void fail(Reason reason);
  // Says DONE(0) to the others if the result is complete.
  void announce();
  // From now on nothing touches the op's buffers.
  void drop_plan();
  // The next data frame for this member, if it may have one now.
  bool pull(Rank to, Send& frame);
  // Forgets the run; begin() may follow.
  void end();

  [[nodiscard]] std::span<std::byte> place(Rank from, const FrameHeader& header);
  Verdict take(Rank from, const FrameHeader& header, std::span<const std::byte> payload);

  [[nodiscard]] const Terms& terms() const { return terms_; }
  [[nodiscard]] bool all_started() const { return starts_missing_ == 0; }
  [[nodiscard]] bool good() const { return good_ && reason_ == Reason::none; }
  [[nodiscard]] bool failed() const { return reason_ != Reason::none; }
  [[nodiscard]] bool settled() const;  // committed, or committed as failed
  // The gravest reason known.
  [[nodiscard]] Reason outcome() const { return worst_; }
  [[nodiscard]] Summary summary() const;
  // Unclear frames were kept: take() them again when all have started.
  bool kept_frames = false;

 private:
  struct Chunk {  // announced by the plan, not sent yet
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    std::uint16_t phase = 0;
  };
  struct Party {
    bool started = false;
    bool done = false;
    bool offered = false;   // this run stands in its lane
    bool must_start = false;  // the eager allowance is used up
    Reason reason = Reason::none;
    std::size_t eager_bytes = 0;
    std::size_t eager_frames = 0;
    std::deque<Chunk> chunks;
  };

  void send(Rank to, std::uint16_t phase, std::uint64_t offset, std::uint32_t length) override;
  [[nodiscard]] bool may_send(Rank to, Party& receiver);
  void notify(FrameType type, std::uint16_t phase);
  void notify_one(Rank to, std::uint16_t phase);
  [[nodiscard]] bool along_tree() const;
  void tell_tree();
  Verdict take_tree_done(Rank from, std::uint16_t phase);
  void return_eager(Rank rank, Party& party);
  Verdict take_start(Rank from, std::span<const std::byte> payload);
  Verdict take_data(Rank from, const FrameHeader& header, std::span<const std::byte> payload);
  Verdict take_done(Rank from, const FrameHeader& header);
  [[nodiscard]] Party& party(Rank rank) { return parties_[terms_.pair ? 0 : rank]; }
  [[nodiscard]] FrameHeader header(FrameType type) const;
  template <typename Visit>
  void for_others(Visit visit);

  friend struct RunSite;

  RunSite& site_;
  Terms terms_;
  Weights weights_;
  std::vector<std::uint64_t> notes_;  // by rank; of a pair: none
  std::unique_ptr<PlanRun> plan_;
  EncodeReport report_;  // of a plan that was dropped
  std::vector<Party> parties_;  // by rank; of a pair: the partner alone
  Rank others_ = 0;
  Rank starts_missing_ = 0;
  Rank heard_good_ = 0;    // DONE(0) and no reason since
  Rank heard_failed_ = 0;  // DONE(reason)
  Reason reason_ = Reason::none;  // this member's own
  Reason worst_ = Reason::none;
  bool good_ = false;
  // Along the tree.
  Rank branches_good_ = 0;  // children whose branches are good
  bool branch_told_ = false;
  bool everyone_good_ = false;
};

}  // namespace reef
