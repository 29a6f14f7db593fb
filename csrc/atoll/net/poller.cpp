#include "atoll/net/poller.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>

namespace reef {

namespace {

constexpr int kBatch = 64;

std::uint64_t tag(std::uint32_t slot, std::uint32_t generation) {
  return (static_cast<std::uint64_t>(generation) << 32) | slot;
}

int to_milliseconds(Nanos timeout) {
  if (timeout == kNever) {
    return -1;
  }
  if (timeout <= 0) {
    return 0;
  }
  // Rounded up, or the loop would spin through the last millisecond before a deadline.
  return static_cast<int>(std::min<Nanos>((timeout - 1) / kMillisecond + 1, INT_MAX));
}

}  // namespace

struct Poller::Batch {
  std::array<epoll_event, kBatch> events;
};

void Poller::BatchDeleter::operator()(Batch* batch) const { delete batch; }

Registration& Registration::operator=(Registration&& other) noexcept {
  if (this != &other) {
    reset();
    poller_ = std::exchange(other.poller_, nullptr);
    slot_ = other.slot_;
  }
  return *this;
}

void Registration::watch(std::uint32_t events) {
  check(poller_ != nullptr, "Registration::watch: it has ended");
  Poller::Slot& slot = poller_->slots_[slot_];
  if (slot.events == events) {
    return;
  }
  slot.events = events;
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag(slot_, slot.generation);
  const int failed = ::epoll_ctl(poller_->epoll_.get(), EPOLL_CTL_MOD, slot.fd, &event);
  check(failed == 0, "Registration::watch: epoll_ctl failed on a registered descriptor");
}

void Registration::reset() {
  if (poller_ == nullptr) {
    return;
  }
  Poller::Slot& slot = poller_->slots_[slot_];
  ::epoll_ctl(poller_->epoll_.get(), EPOLL_CTL_DEL, slot.fd, nullptr);
  slot.target = nullptr;
  slot.fd = -1;
  ++slot.generation;
  poller_->free_.push_back(slot_);
  poller_ = nullptr;
}

Poller::Poller(Fd epoll) : epoll_(std::move(epoll)), batch_(new Batch) {}

Result<std::unique_ptr<Poller>> Poller::create() {
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) {
    const int reason = errno;
    return Error{Code::io, reason, std::string("cannot create an epoll: ") + strerror(reason)};
  }
  return std::unique_ptr<Poller>(new Poller(std::move(epoll)));
}

Result<Registration> Poller::add(int fd, std::uint32_t events, Ready& target) {
  std::uint32_t index = 0;
  if (free_.empty()) {
    index = static_cast<std::uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    index = free_.back();
    free_.pop_back();
  }
  Slot& slot = slots_[index];
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag(index, slot.generation);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    const int reason = errno;
    free_.push_back(index);
    return Error{Code::io, reason, std::string("cannot watch a socket: ") + strerror(reason)};
  }
  slot.fd = fd;
  slot.events = events;
  slot.target = &target;
  return Registration(this, index);
}

int Poller::collect(Nanos timeout) {
  const int count =
      ::epoll_wait(epoll_.get(), batch_->events.data(), kBatch, to_milliseconds(timeout));
  check(count >= 0 || errno == EINTR, "Poller::collect: epoll_wait failed");
  return std::max(count, 0);
}

bool Poller::dispatch(int index) {
  const epoll_event& event = batch_->events[static_cast<std::size_t>(index)];
  const auto slot_index = static_cast<std::uint32_t>(event.data.u64);
  const auto generation = static_cast<std::uint32_t>(event.data.u64 >> 32);
  const Slot& slot = slots_[slot_index];
  if (slot.target == nullptr || slot.generation != generation) {
    return false;
  }
  slot.target->on_ready(event.events);
  return true;
}

}  // namespace reef
