// The simulated users: each submits the program's ops in order on every channel, and a pair
// exchange now and then. Their buffers are poisoned when an op is over, so that whoever reads or writes them
// later is found out.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "atoll/collective/core.h"
#include "sim/network.h"
#include "sim/program.h"

namespace reef::sim {

struct UserOp {
  Channel channel = 0;
  Sequence sequence = 0;  // exchange: the tag
  bool exchange = false;
  std::size_t partner = 0;
  std::vector<float> in;
  std::vector<float> out;
  bool over = false;
};

class Users {
 public:
  struct Program {
    std::uint64_t seed = 0;
    Channel channels = 1;
    Sequence ops = 1;  // per channel
  };

  Users(const Program& program, Hosts& hosts, Events& events, Random& random, Ledger& ledger,
        Failure& failure, std::size_t peers)
      : program_(program),
        hosts_(hosts),
        events_(events),
        random_(random),
        ledger_(ledger),
        failure_(failure),
        users_(peers) {}

  // A joiner's first op on each channel.
  void will_begin_at(std::size_t number, const Starts& starts) {
    if (users_[number].begun) return;
    for (const auto& [channel, start] : starts) users_[number].next[channel] = start;
  }
  void begin(std::size_t number) {
    if (std::exchange(users_[number].begun, true)) return;
    for (Channel channel = 0; channel < program_.channels; ++channel) step(number, channel);
  }
  void pair_up() {
    const std::size_t one = random_.below(users_.size());
    const std::size_t two = random_.below(users_.size());
    if (one == two) return;
    const Sequence tag = ++last_tag_;
    const std::size_t count = random_.below(60);
    for (const auto& [number, partner] : {std::pair{one, two}, std::pair{two, one}}) {
      if (random_.percent(10)) continue;
      hosts_.on_peer(number, random_.between(1, 400), [=, this, number = number,
                                                          partner = partner] {
        OpRequest request;
        request.id = ++last_id_;
        request.kind = OpKind::exchange;
        request.channel = static_cast<Channel>(tag % program_.channels);
        request.tag = tag;
        request.partner = hosts_.id(partner);
        request.chunk_bytes = 24;
        request.deadline = events_.now + 3'000;
        UserOp& op = users_[number].ops[request.id];
        op.channel = request.channel;
        op.sequence = tag;
        op.exchange = true;
        op.partner = partner;
        give_buffers(op, request, number, count);
        start(number, request);
      });
    }
  }
  void released(std::size_t number, OpId op) { users_[number].released = op; }
  void completed(std::size_t number, const Complete& end) {
    User& user = users_[number];
    UserOp& op = user.ops.at(end.op);
    if (op.over) failure_.report("an op completed twice");
    if (user.released != end.op) failure_.report("no Release before a Complete");
    op.over = true;
    if (end.sequence != op.sequence && end.code != Code::closed) {
      failure_.report("an op completed with another's number");
    }
    for (std::size_t i = 0; i < op.in.size(); ++i) {
      if (op.in[i] != input(op, number, i)) failure_.report("an input was changed");
    }
    if (op.exchange) {
      exchanged(op, end);
    } else {
      ledger_.completed(number, op.channel, end, op.out);
      --user.outstanding[op.channel];
    }
    // Whoever reads or writes them from now on is found out.
    std::fill(op.in.begin(), op.in.end(), kPoison);
    std::fill(op.out.begin(), op.out.end(), kPoison);
  }
  [[nodiscard]] const UserOp& op(std::size_t number, OpId id) const {
    return users_[number].ops.at(id);
  }
  // Nothing waits, and nothing was touched when it was over. `member`: all ops must have ended.
  void check_end(std::size_t number, bool member) {
    User& user = users_[number];
    for (Channel channel = 0; channel < program_.channels; ++channel) {
      if (member && (user.next[channel] < program_.ops || user.outstanding[channel] > 0)) {
        failure_.report("peer " + std::to_string(number) + " hangs on channel " +
                        std::to_string(channel));
      }
    }
    for (const auto& [id, op] : user.ops) {
      if (!op.over && op.exchange && hosts_.alive(number)) {
        failure_.report("an exchange never ended");
      }
      if (!op.over) continue;
      for (std::size_t i = 0; i < op.in.size(); ++i) {
        if (op.in[i] != kPoison || op.out[i] != kPoison) {
          failure_.report("a buffer was written to after its op had completed");
        }
      }
    }
  }

 private:
  static constexpr float kPoison = -12345.0F;

  struct User {
    bool begun = false;
    std::map<OpId, UserOp> ops;
    std::map<Channel, Sequence> next;
    std::map<Channel, std::size_t> outstanding;
    OpId released = 0;
  };

  void step(std::size_t number, Channel channel) {
    const std::uint64_t delay =
        random_.percent(4) ? random_.between(500, 5'000) : random_.between(1, 500);
    hosts_.on_peer(number, delay, [this, number, channel] {
      User& user = users_[number];
      if (user.next[channel] >= program_.ops) return;
      if (user.outstanding[channel] < 2) submit(number, channel);
      step(number, channel);
    });
  }
  void submit(std::size_t number, Channel channel) {
    User& user = users_[number];
    const Sequence sequence = user.next[channel]++;
    const Recipe recipe = recipe_of(program_.seed, channel, sequence, users_.size());
    const bool culprit = recipe.culprit == number;
    OpRequest request;
    request.id = ++last_id_;
    request.channel = channel;
    request.kind = recipe.kind;
    request.plan = recipe.kind == OpKind::all_reduce ? recipe.plan : Plan::none;
    request.chunk_bytes = recipe.chunk_bytes;
    request.root = hosts_.id(recipe.root);
    if (recipe.kind == OpKind::all_reduce && recipe.absent == number) request.weight = 0;
    std::size_t count = recipe.count;
    if (culprit && recipe.trouble == Trouble::mismatch) {
      if (recipe.kind == OpKind::barrier) request.kind = OpKind::all_reduce;
      count += 1 + recipe.patience % 40;
    }
    if (culprit && recipe.trouble == Trouble::deadline) {
      request.deadline = events_.now + static_cast<Nanos>(recipe.patience);
    }
    ++user.outstanding[channel];
    UserOp& op = user.ops[request.id];
    op.channel = channel;
    op.sequence = sequence;
    give_buffers(op, request, number, count);
    start(number, request);
    if (culprit && recipe.trouble == Trouble::abort) {
      hosts_.on_peer(number, recipe.patience,
              [this, number, id = request.id] { hosts_.core(number).abort(id, events_.now); });
    }
  }
  void give_buffers(UserOp& op, OpRequest& request, std::size_t number, std::size_t count) {
    op.in.resize(count);
    op.out.assign(count, -1.0F);
    for (std::size_t i = 0; i < count; ++i) op.in[i] = input(op, number, i);
    request.count = count;
    request.in = std::as_bytes(std::span(op.in));
    request.out = std::as_writable_bytes(std::span(op.out));
  }
  static float input(const UserOp& op, std::size_t number, std::size_t i) {
    return share_of(op.channel, op.sequence, number, i) + (op.exchange ? 0.5F : 0.0F);
  }
  void start(std::size_t number, const OpRequest& request) {
    const Status status = hosts_.core(number).submit(request, events_.now);
    if (!status.ok()) failure_.report("an op was refused: " + status.error().message);
    if (request.deadline == kNever) return;
    hosts_.on_peer(number, static_cast<std::uint64_t>(request.deadline - events_.now),
            [this, number] { hosts_.core(number).tick(events_.now); });
  }
  void exchanged(const UserOp& op, const Complete& end) {
    if (end.code != Code::ok) {
      const bool usual = end.code == Code::deadline || end.code == Code::peer_lost ||
                         end.code == Code::closed || end.code == Code::not_member;
      if (!usual) failure_.report(std::string("an exchange ended ") + code_name(end.code));
      return;
    }
    for (std::size_t i = 0; i < op.out.size(); ++i) {
      if (op.out[i] != input(op, op.partner, i)) failure_.report("an exchange brought others");
    }
  }

  Program program_;
  Hosts& hosts_;
  Events& events_;
  Random& random_;
  Ledger& ledger_;
  Failure& failure_;
  std::vector<User> users_;
  OpId last_id_ = 0;
  Sequence last_tag_ = 0;
};

}  // namespace reef::sim
