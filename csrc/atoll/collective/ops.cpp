// An op's life on its channel: queued, started, good or failed, committed. See run.h for the rule.

#include "atoll/collective/planning.h"
#include "atoll/collective/state.h"

namespace reef {

OpDescription Core::State::describe(const OpRequest& request) const {
  OpDescription description;
  description.kind = request.kind == OpKind::recv ? OpKind::send : request.kind;
  description.dtype = request.dtype;
  description.count = request.count;
  description.note = request.note;
  if (request.kind == OpKind::barrier) return description;
  if (is_reducing(request.kind)) {
    description.reduction = request.reduction;
    description.codec = request.codec.id;
    description.rounding = request.codec.rounding;
    description.weight = request.weight;
  } else if (request.kind == OpKind::broadcast) {
    const auto root = ranks.find(request.root);
    description.root = root == ranks.end() ? 0 : root->second;
  } else if (request.kind == OpKind::send || request.kind == OpKind::recv) {
    description.root = request.kind == OpKind::send ? site.self : ranks.at(request.partner);
  } else if (request.kind == OpKind::all_gather) {
    description.digest = digest_of(request.counts);
    if (!request.counts.empty()) description.count = 0;  // each has its own
  }
  const Choice choice = choose(request, site.view, options);
  if (request.kind == OpKind::all_reduce) description.plan = choice.plan;
  description.chunk_bytes = choice.chunk_bytes;
  return description;
}

// Why this view cannot run the op, if so.
Reason Core::State::misfit(const OpRequest& request) const {
  if (request.epoch != 0 && (request.epoch < members_since || request.epoch > site.view.epoch)) {
    return Reason::view_changed;
  }
  if (request.kind == OpKind::broadcast && !ranks.contains(request.root)) return Reason::root_lost;
  return fits(request, site.self, site.view.size()) ? Reason::none : Reason::mismatch;
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
  Op& op = *channel.queue.front();
  Reason reason = op.reason == Reason::none ? misfit(op.request) : op.reason;
  if (reason == Reason::none && op.spent) reason = Reason::view_changed;
  Run::Terms terms;
  terms.wire_channel = channel.id;
  terms.sequence = channel.committed;
  terms.op = op.request.id;
  terms.description = describe(op.request);
  terms.priority = op.request.priority;
  channel.running = true;
  const Weights& weights =
      channel.run.expect(site.view.size(), site.self, terms.description.weight);
  std::unique_ptr<PlanRun> plan;
  if (reason == Reason::none) {
    if (in_place(op.request)) {
      op.spent = works_in_place(terms.description);
      if (!op.spent) set_input_aside(op.request);
    }
    plan = make_plan(op.request, terms.description, site.self, site.view, weights);
  }
  channel.run.begin(terms, std::move(plan));
  if (reason != Reason::none) channel.run.fail(reason);
  if (!early.empty()) take_early_of_all(channel.run);
}

// The front op is over, with `code` for a caller that still waits.
void Core::State::commit(ChannelState& channel, Code code, Reason reason) {
  std::unique_ptr<Op> op = std::move(channel.queue.front());
  channel.queue.pop_front();
  channel.running = false;
  const Summary summary = code == Code::ok ? channel.run.summary() : Summary{};
  end_run(channel.run);
  if (!op->caller_gone) complete(*op, code, site.view.epoch, channel.committed, summary);
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
  if (is_pairwise(op.request.kind)) {
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
