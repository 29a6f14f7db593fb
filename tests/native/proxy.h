// For tests: a TCP relay between a dialling engine and a listening one that cuts connections.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "atoll/net/socket.h"
#include "atoll/net/wakeup.h"

namespace reef::testing {

class Proxy {
 public:
  struct Habits {
    std::uint64_t seed = 1;
    std::size_t cut_every = 0;  // bytes through the relay, on the average; 0: never by itself
    int all_at_once = 0;        // of so many cuts one takes all connections; 0: none does
    int corrupt_every = 0;      // of so many chunks one has a bit turned over; 0: none has
  };

  Proxy(std::uint16_t target, const Habits& habits)
      : target_(target),
        habits_(habits),
        random_(habits.seed),
        listener_(std::move(listen_on("127.0.0.1", 0).value())),
        bell_(std::move(Wakeup::create().value())) {
    next_cut_ = draw();
    thread_ = std::thread([this] { run(); });
  }
  ~Proxy() {
    over_ = true;
    bell_.ring();
    thread_.join();
  }
  [[nodiscard]] std::uint16_t port() const { return local_port(listener_.get()); }
  [[nodiscard]] int cuts() const { return cuts_; }
  [[nodiscard]] int corruptions() const { return corruptions_; }
  void rest() { resting_ = true; }  // no more cuts by itself
  void cut_all() {
    cut_all_ = true;
    bell_.ring();
  }
  void lead_to(std::uint16_t target) { target_ = target; }  // who connects from now on
  void refuse() { refusing_ = true; }  // who connects from now on is hung up on

 private:
  struct Relay {
    Fd ends[2];
    std::vector<std::byte> under_way[2];  // from end i, for the other
    bool dead = false;
  };

  std::size_t draw() {
    return habits_.cut_every == 0 ? SIZE_MAX : 1 + random_() % (2 * habits_.cut_every);
  }
  void run() {
    while (!over_) {
      std::vector<pollfd> waits{{bell_.fd(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
      for (const auto& relay : relays_) {
        for (int end = 0; end < 2; ++end) {
          short events = relay->under_way[end].empty() ? POLLIN : 0;
          if (!relay->under_way[1 - end].empty()) events |= POLLOUT;
          waits.push_back({relay->ends[end].get(), events, 0});
        }
      }
      ::poll(waits.data(), waits.size(), -1);
      bell_.silence();
      if (cut_all_.exchange(false)) {
        for (auto& relay : relays_) kill(*relay);
      }
      const std::size_t present = relays_.size();
      if (waits[1].revents != 0) admit();
      for (std::size_t i = 0; i < present; ++i) {
        for (int end = 0; end < 2 && !relays_[i]->dead; ++end) {
          const short events = waits[2 + 2 * i + static_cast<std::size_t>(end)].revents;
          if ((events & (POLLIN | POLLHUP | POLLERR)) != 0) take(*relays_[i], end);
          if ((events & POLLOUT) != 0 && !relays_[i]->dead) give(*relays_[i], 1 - end);
        }
      }
      std::erase_if(relays_, [](const auto& relay) { return relay->dead; });
    }
  }
  void admit() {
    auto relay = std::make_unique<Relay>();
    relay->ends[0] = Fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!relay->ends[0].valid() || refusing_) return;
    const Address to = resolve("127.0.0.1", target_, true).value().at(0);
    auto onward = start_connect(to);
    if (!onward) return;
    relay->ends[1] = std::move(onward.value());
    relays_.push_back(std::move(relay));
  }
  void take(Relay& relay, int end) {
    if (!relay.under_way[end].empty()) return;
    auto& bytes = relay.under_way[end];
    bytes.resize(1 + random_() % (64u << 10));
    const ssize_t got = ::recv(relay.ends[end].get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == ENOTCONN)) {
      bytes.clear();
      return;
    }
    if (got <= 0) {
      relay.dead = true;
      return;
    }
    bytes.resize(static_cast<std::size_t>(got));
    if (habits_.corrupt_every != 0 && !resting_ && got > 1'000 &&
        random_() % static_cast<unsigned>(habits_.corrupt_every) == 0) {
      bytes[random_() % bytes.size()] ^= std::byte{0x10};
      ++corruptions_;
    }
    if (resting_ || habits_.cut_every == 0) return;
    if (next_cut_ > bytes.size()) {
      next_cut_ -= bytes.size();
      return;
    }
    bytes.resize(next_cut_);  // the last bytes still arrive, or not
    if (random_() % 2 == 0) give(relay, end);
    next_cut_ = draw();
    const bool all = habits_.all_at_once != 0 &&
                     random_() % static_cast<unsigned>(habits_.all_at_once) == 0;
    for (auto& one : relays_) {
      if (all || one.get() == &relay) kill(*one);
    }
    ++cuts_;
  }
  void give(Relay& relay, int from) {
    auto& bytes = relay.under_way[from];
    const ssize_t sent = ::send(relay.ends[1 - from].get(), bytes.data(), bytes.size(),
                                MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      bytes.erase(bytes.begin(), bytes.begin() + sent);
    } else if (sent < 0 && errno != EAGAIN && errno != ENOTCONN) {
      relay.dead = true;
    }
  }
  // By a reset or politely, of both ends or of one a moment before the other.
  void kill(Relay& relay) {
    for (Fd& end : relay.ends) {
      if (random_() % 2 == 0) {
        const linger at_once{1, 0};
        ::setsockopt(end.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
      }
    }
    relay.dead = true;
  }

  std::atomic<std::uint16_t> target_;
  Habits habits_;
  std::mt19937_64 random_;
  Fd listener_;
  Wakeup bell_;
  std::size_t next_cut_ = 0;
  std::vector<std::unique_ptr<Relay>> relays_;
  std::atomic<int> cuts_ = 0;
  std::atomic<int> corruptions_ = 0;
  std::atomic<bool> over_ = false;
  std::atomic<bool> resting_ = false;
  std::atomic<bool> cut_all_ = false;
  std::atomic<bool> refusing_ = false;
  std::thread thread_;
};

}  // namespace reef::testing
