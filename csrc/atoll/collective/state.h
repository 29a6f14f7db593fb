// The inside of Core, shared by its source files and nobody else: what is queued, what runs, which
// view is installed. All transitions of an op are in ops.cpp, those of a view in views.cpp, the way
// of a frame in frames.cpp, pair exchanges in exchange.cpp.
//
// Thread: the core's.
#pragma once

#include <compare>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "atoll/collective/core.h"
#include "atoll/collective/early_frames.h"
#include "atoll/collective/run.h"

namespace reef {

struct Op {
  OpRequest request;
  Sequence ordinal = 0;  // its place among the ops ever submitted on the channel
  // Why this member fails the op in every run of it; none: it would succeed.
  Reason reason = Reason::none;
  // The caller has its Complete, and the buffers: what is left only keeps the op's place, because
  // the other members run it too.
  bool caller_gone = false;
  // It has begun over its own input, which may be no more.
  bool spent = false;
};

struct ChannelState {
  explicit ChannelState(RunSite& site) : run(site) {}
  Channel id = 0;
  Sequence committed = 0;
  Sequence submitted = 0;
  std::deque<std::unique_ptr<Op>> queue;  // the front has the number `committed`
  bool running = false;                   // the front is started, in `run`
  Run run;
  // The last op if it committed as failed: a member that had not heard all may have it run again.
  std::unique_ptr<Op> failed_last;
  [[nodiscard]] Sequence number_of(const Op& op) const {
    return queue.empty() ? committed : committed + (op.ordinal - queue.front()->ordinal);
  }
};

// A pair exchange that is under way; it exists in one view only.
struct ExchangeKey {
  Channel channel = 0;  // as on the wire
  Sequence tag = 0;
  Rank partner = 0;
  auto operator<=>(const ExchangeKey&) const = default;
};
struct Exchange {
  explicit Exchange(RunSite& site) : run(site) {}
  Op op;
  Run run;
};

struct Core::State {
  State(PeerId self_id, CoreOptions core_options);

  PeerId self;
  CoreOptions options;
  RunSite site;
  std::unordered_map<PeerId, Rank> ranks;  // of site.view
  Epoch members_since = 0;  // the view from which on the members are those of now
  bool member = false;                     // this peer is in site.view
  bool closed = false;
  bool fenced = false;  // no op starts
  bool frozen = false;  // nothing of the present epoch moves
  struct PendingInstall {
    View view;
    Starts starts;
  };
  std::optional<PendingInstall> pending;  // a drain

  std::map<Channel, ChannelState> channels;
  std::map<ExchangeKey, Exchange> exchanges;
  // Exchanges of this view that failed here: what still comes for them is nothing new.
  std::set<ExchangeKey> failed_exchanges;
  std::deque<ExchangeKey> failed_exchanges_order;
  // Receipts that went well: a sender that does not know yet may still give up.
  std::set<ExchangeKey> ended_receipts;
  std::deque<ExchangeKey> ended_receipts_order;
  std::set<Channel> listened;  // Offered tells of sends there
  std::unordered_map<OpId, Op*> waiting;  // ops whose caller waits
  std::set<std::pair<Nanos, OpId>> deadlines;
  EarlyFrames early;
  Tally tally;

  // core.cpp
  [[nodiscard]] Status refuse(const OpRequest& request) const;
  ChannelState& channel(Channel id);
  void watch(Op& op);
  void complete(Op& op, Code code, Epoch epoch, Sequence sequence, const Summary& summary = {});

  // ops.cpp
  [[nodiscard]] OpDescription describe(const OpRequest& request) const;
  [[nodiscard]] Reason misfit(const OpRequest& request) const;
  [[nodiscard]] bool may_start(const ChannelState& channel) const;
  void advance(ChannelState& channel);
  void start(ChannelState& channel);
  void commit(ChannelState& channel, Code code, Reason reason);
  void run_again(ChannelState& channel);
  void expire(Op& op, Reason reason);

  // frames.cpp
  Status deliver(const PeerId& from, const FrameHeader& header, std::span<const std::byte> payload);
  std::span<std::byte> place(const PeerId& from, const FrameHeader& header, OpId& op);
  bool pull(const PeerId& to, Send& frame);
  Status deliver_op(const PeerId& from, Rank rank, const FrameHeader& header,
                    std::span<const std::byte> payload);
  void take_early(Run& run, Rank from);
  void take_early_of_all(Run& run);
  void end_run(Run& run);

  // exchange.cpp
  void begin_exchange(const OpRequest& request);
  [[nodiscard]] Channel pair_channel(const OpRequest& request, Rank partner) const;
  Status deliver_exchange(const PeerId& from, Rank rank, const FrameHeader& header,
                          std::span<const std::byte> payload);
  void listen(Channel channel);
  void settle_exchange(const ExchangeKey& key);
  void end_exchange(ExchangeKey key, Code code);
  void end_exchanges(Code code);
  void expire_exchange(Op& op, Reason reason);

  // views.cpp
  void fence(std::uint64_t attempt, Change kind);
  void install(const View& view, const Starts& starts, Change kind);
  bool try_switch();
  void switch_to(const View& view, const Starts& starts);
  void settle(ChannelState& channel, Sequence start, bool stays);
  void number_from(ChannelState& channel, Sequence start);
  [[nodiscard]] Progress progress() const;
};

}  // namespace reef
