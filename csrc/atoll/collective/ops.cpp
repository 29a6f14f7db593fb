// An op's life on its channel: queued, started, good or failed, committed. See run.h for the rule.

#include "atoll/collective/state.h"

namespace reef {

OpDescription Core::State::describe(const Op& op) const {
  const OpRequest& request = op.request;
  OpDescription description;
  description.kind = request.kind;
  description.dtype = request.dtype;
  description.count = request.count;
  description.chunk_bytes = request.chunk_bytes != 0 ? request.chunk_bytes : options.chunk_bytes;
  if (request.kind == OpKind::all_reduce) {
    description.reduction = Reduction::sum;
    const std::uint64_t bytes = request.count * dtype_bytes(request.dtype);
    const Plan best = bytes <= options.direct_max_bytes ? Plan::direct : Plan::ring;
    description.plan = request.plan == Plan::none ? best : request.plan;
  } else if (request.kind == OpKind::broadcast) {
    const auto root = ranks.find(request.root);
    description.root = root == ranks.end() ? 0 : root->second;
  } else if (request.kind == OpKind::barrier) {
    description.chunk_bytes = 0;
  }
  return description;
}

std::unique_ptr<PlanRun> Core::State::plan_for(const Op& op, const OpDescription& description) {
  PlanSetup setup;
  setup.self = site.self;
  setup.members = site.view.size();
  setup.in = op.request.in;
  setup.out = op.request.out;
  setup.chunk_bytes = description.chunk_bytes;
  switch (op.request.kind) {
    case OpKind::all_reduce:
      return description.plan == Plan::ring ? make_ring(setup) : make_direct(setup);
    case OpKind::broadcast:
      setup.other = description.root;
      return make_broadcast(setup);
    case OpKind::exchange:
      setup.other = ranks.at(op.request.partner);
      return make_swap(setup);
    case OpKind::barrier: break;
  }
  return nullptr;
}

bool Core::State::may_start(const ChannelState& channel) const {
  if (!member || frozen || fenced || channel.queue.empty()) return false;
  if (!pending) return true;
  const auto start = pending->starts.find(channel.id);
  return start != pending->starts.end() && channel.committed < start->second;
}

// Takes the channel as far as it goes: the running op says what it can say and commits, the next
// one starts, and so on.
void Core::State::advance(ChannelState& channel) {
  if (closed || frozen) return;
  for (;;) {
    if (channel.running) {
      channel.run.announce();
      if (!channel.run.settled()) return;
      const Reason reason = channel.run.outcome();
      commit(channel, code_of(reason), reason);
      if (pending && try_switch()) return;  // which has advanced all channels
    }
    if (!may_start(channel)) return;
    start(channel);
  }
}

void Core::State::start(ChannelState& channel) {
  const Op& op = *channel.queue.front();
  const bool root_lost =
      op.request.kind == OpKind::broadcast && !ranks.contains(op.request.root);
  const Reason reason =
      op.reason == Reason::none && root_lost ? Reason::root_lost : op.reason;
  Run::Terms terms;
  terms.wire_channel = channel.id;
  terms.sequence = channel.committed;
  terms.op = op.request.id;
  terms.description = describe(op);
  channel.running = true;
  channel.run.begin(terms,
                    reason == Reason::none ? plan_for(op, terms.description) : nullptr);
  if (reason != Reason::none) channel.run.fail(reason);
  if (!early.empty()) take_early_of_all(channel.run);
}

// The front op is over, with `code` for a caller that still waits.
void Core::State::commit(ChannelState& channel, Code code, Reason reason) {
  std::unique_ptr<Op> op = std::move(channel.queue.front());
  channel.queue.pop_front();
  channel.running = false;
  end_run(channel.run);
  if (!op->caller_gone) complete(*op, code, site.view.epoch, channel.committed);
  ++channel.committed;
  channel.failed_last.reset();
  if (code == Code::ok) {
    ++tally.ops_committed;
  } else {
    op->reason = reason == Reason::none ? Reason::aborted : reason;
    channel.failed_last = std::move(op);
  }
}

// A lost member has interrupted the front op: it starts anew in the next view.
void Core::State::run_again(ChannelState& channel) {
  end_run(channel.run);
  channel.running = false;
  const Op& op = *channel.queue.front();
  ++tally.ops_rerun;
  if (op.caller_gone) return;
  site.actions.emplace_back(Release{op.request.id});
  if (op.request.deadline != kNever) deadlines.emplace(op.request.deadline, op.request.id);
}

// The op's deadline has passed, or its caller aborts it. The caller is let go at once; the op keeps
// its place, failed, because the other members will have it run.
void Core::State::expire(Op& op, Reason reason) {
  if (op.request.kind == OpKind::exchange) {
    expire_exchange(op, reason);
    return;
  }
  ChannelState& channel = channels.at(op.request.channel);
  const bool running = channel.running && channel.queue.front().get() == &op;
  if (running && channel.run.good()) return;  // it holds the result, and has said so
  op.reason = running && channel.run.failed() ? channel.run.outcome() : reason;
  if (running) channel.run.drop_plan();
  complete(op, code_of(op.reason), site.view.epoch, channel.number_of(op));
  if (!running || frozen) return;
  if (!channel.run.failed()) channel.run.fail(op.reason);
  advance(channel);
}

}  // namespace reef
