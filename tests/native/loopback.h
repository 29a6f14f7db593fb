// Some cores and the frames between them, in one thread and without time: what the unit tests of
// the collectives drive by hand. Frames are copied when their Send is taken, and arrive in order
// or, with a seed, in any order.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "atoll/collective/core.h"

namespace reef::testing {

inline PeerId peer_id(std::size_t number) {
  PeerId id;
  id.bytes[0] = static_cast<std::uint8_t>(number + 1);
  id.bytes[15] = 0xa7;
  return id;
}

struct Buffers {
  std::vector<float> in;
  std::vector<float> out;
  [[nodiscard]] std::span<const std::byte> in_bytes() const { return std::as_bytes(std::span(in)); }
  [[nodiscard]] std::span<std::byte> out_bytes() {
    return std::as_writable_bytes(std::span(out));
  }
};

struct Frame {
  std::size_t from = 0;
  std::size_t to = 0;
  FrameHeader header;
  std::vector<std::byte> payload;
};

class Loopback {
 public:
  explicit Loopback(std::size_t peers, CoreOptions options = {}) {
    for (std::size_t i = 0; i < peers; ++i) {
      cores_.push_back(std::make_unique<Core>(peer_id(i), options));
      completed_.emplace_back();
      fenced_.emplace_back();
      installed_.emplace_back();
    }
  }

  Core& core(std::size_t peer) { return *cores_[peer]; }
  [[nodiscard]] std::size_t size() const { return cores_.size(); }

  static View view_of(Epoch epoch, const std::vector<std::size_t>& peers) {
    View view;
    view.epoch = epoch;
    for (std::size_t peer : peers) view.members.push_back(peer_id(peer));
    return view;
  }
  void install_all(Epoch epoch = 1) {
    std::vector<std::size_t> everyone;
    for (std::size_t i = 0; i < size(); ++i) everyone.push_back(i);
    for (std::size_t i = 0; i < size(); ++i) {
      core(i).install(view_of(epoch, everyone), {}, Change::abort, 0);
    }
    collect();
  }

  OpRequest all_reduce(Buffers& buffers, Channel channel = 0, Plan plan = Plan::none) {
    OpRequest request;
    request.id = next_id_++;
    request.kind = OpKind::all_reduce;
    request.plan = plan;
    request.channel = channel;
    request.count = buffers.in.size();
    request.in = buffers.in_bytes();
    request.out = buffers.out_bytes();
    return request;
  }
  OpRequest barrier(Channel channel = 0) {
    OpRequest request;
    request.id = next_id_++;
    request.channel = channel;
    return request;
  }
  OpRequest broadcast(Buffers& buffers, std::size_t root, Channel channel = 0) {
    OpRequest request = all_reduce(buffers, channel);
    request.kind = OpKind::broadcast;
    request.root = peer_id(root);
    return request;
  }
  OpRequest exchange(Buffers& buffers, std::size_t partner, Sequence tag, Channel channel = 0) {
    OpRequest request = all_reduce(buffers, channel);
    request.kind = OpKind::exchange;
    request.partner = peer_id(partner);
    request.tag = tag;
    return request;
  }
  OpId submit(std::size_t peer, const OpRequest& request) {
    const Status status = core(peer).submit(request, 0);
    EXPECT_TRUE(status.ok());
    collect();
    return request.id;
  }

  // Takes all actions and all data; Sends become frames under way.
  void collect() {
    Action action;
    for (std::size_t peer = 0; peer < size(); ++peer) {
      while (core(peer).next(action)) handle(peer, action);
      if (!pulls) continue;
      Send data;
      for (std::size_t to = 0; to < size(); ++to) {
        while (core(peer).pull(peer_id(to), data)) send(peer, data);
      }
    }
  }
  // Delivers one frame, if there is one that `wanted` lets through.
  template <typename Wanted>
  bool step(Wanted wanted) {
    std::vector<std::size_t> candidates;
    for (std::size_t i = 0; i < under_way.size(); ++i) {
      if (wanted(under_way[i])) candidates.push_back(i);
      if (!candidates.empty() && !random_) break;
    }
    if (candidates.empty()) return false;
    const std::size_t pick = random_ ? candidates[(*random_)() % candidates.size()] : candidates[0];
    const Frame frame = std::move(under_way[pick]);
    under_way.erase(under_way.begin() + static_cast<std::ptrdiff_t>(pick));
    deliver(frame);
    return true;
  }
  void run() {
    while (step([](const Frame&) { return true; })) {
    }
  }
  template <typename Wanted>
  void run_only(Wanted wanted) {
    while (step(wanted)) {
    }
  }
  // Delivers one frame the way a shell does: into place() if there is one.
  void deliver(const Frame& frame) {
    Core& to = core(frame.to);
    OpId op = 0;
    const std::span<std::byte> place = to.place(peer_id(frame.from), frame.header, op);
    // A shell's own memory need not be aligned.
    std::vector<std::byte> crooked(frame.payload.size() + 1);
    std::copy(frame.payload.begin(), frame.payload.end(), crooked.begin() + 1);
    std::span<const std::byte> payload = std::span(crooked).subspan(1);
    if (!place.empty()) {
      ASSERT_EQ(place.size(), frame.payload.size());
      std::copy(frame.payload.begin(), frame.payload.end(), place.begin());
      payload = place;
      ++placed_;
    }
    const Status status = to.deliver(peer_id(frame.from), frame.header, payload, 0);
    EXPECT_TRUE(status.ok()) << (status.ok() ? "" : status.error().message);
    collect();
  }

  [[nodiscard]] std::optional<Complete> completed(std::size_t peer, OpId op) const {
    const auto found = completed_[peer].find(op);
    if (found == completed_[peer].end()) return std::nullopt;
    return found->second;
  }
  [[nodiscard]] bool ended_with(std::size_t peer, OpId op, Code code) const {
    const std::optional<Complete> end = completed(peer, op);
    return end && end->code == code;
  }
  [[nodiscard]] const std::vector<Fenced>& fenced(std::size_t peer) const { return fenced_[peer]; }
  [[nodiscard]] const std::vector<Installed>& installed(std::size_t peer) const {
    return installed_[peer];
  }
  [[nodiscard]] const std::vector<Offered>& offered() const { return offered_; }
  [[nodiscard]] const std::vector<Blame>& blamed() const { return blamed_; }
  [[nodiscard]] std::size_t placed() const { return placed_; }
  void shuffle(std::uint64_t seed) { random_.emplace(seed); }

  void send(std::size_t peer, const Send& send) {
    Frame frame{peer, 0, send.header, {}};
    while (peer_id(frame.to) != send.to) ++frame.to;
    const std::span<const std::byte> bytes =
        send.owned.empty() ? send.payload : std::span<const std::byte>(send.owned);
    frame.payload.assign(bytes.begin(), bytes.end());
    EXPECT_EQ(frame.payload.size(), frame.header.length);
    under_way.push_back(std::move(frame));
  }

  std::vector<Frame> under_way;
  bool pulls = true;  // false: data stays in the cores

 private:
  void handle(std::size_t peer, Action& action) {
    if (const auto* notice = std::get_if<Send>(&action)) {
      send(peer, *notice);
    } else if (auto* complete = std::get_if<Complete>(&action)) {
      EXPECT_FALSE(completed_[peer].contains(complete->op)) << "an op completed twice";
      EXPECT_EQ(last_release_, complete->op) << "no Release before a Complete";
      completed_[peer].emplace(complete->op, *complete);
    } else if (auto* release = std::get_if<Release>(&action)) {
      last_release_ = release->op;
    } else if (auto* fenced = std::get_if<Fenced>(&action)) {
      fenced_[peer].push_back(*fenced);
    } else if (auto* installed = std::get_if<Installed>(&action)) {
      installed_[peer].push_back(*installed);
    } else if (auto* blame = std::get_if<Blame>(&action)) {
      blamed_.push_back(*blame);
    } else if (auto* offered = std::get_if<Offered>(&action)) {
      offered_.push_back(*offered);
    }
  }

  std::vector<std::unique_ptr<Core>> cores_;
  std::vector<std::map<OpId, Complete>> completed_;
  std::vector<std::vector<Fenced>> fenced_;
  std::vector<std::vector<Installed>> installed_;
  std::vector<Blame> blamed_;
  std::vector<Offered> offered_;
  std::optional<std::mt19937_64> random_;
  OpId next_id_ = 1;
  OpId last_release_ = 0;
  std::size_t placed_ = 0;
};

}  // namespace reef::testing
