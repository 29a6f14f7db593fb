#include "atoll/engine/fetcher.h"

#include <algorithm>
#include <utility>

#include "atoll/base/endian.h"
#include "atoll/base/limits.h"
#include "atoll/net/send_queue.h"

namespace reef {

void Fetcher::start(const FetchRequest& request) {
  fetches_[request.op].request = request;
  donors_[request.donor].waiting.push_back(request.op);
  ask_more(request.donor);
}

void Fetcher::ask_more(const PeerId& peer) {
  Donor& donor = donors_[peer];
  while (!donor.waiting.empty() && donor.outstanding < limits::kMaxStateRequestsPerPeer) {
    Fetch& fetch = fetches_.at(donor.waiting.front());
    donor.waiting.pop_front();
    fetch.asked = true;
    ++donor.outstanding;
    FetchAsk ask;
    ask.to = peer;
    ask.header.type = FrameType::state_request;
    ask.header.channel = fetch.request.buffer;
    ask.header.length = 8;
    ask.header.epoch = fetch.request.revision;
    ask.header.sequence = fetch.request.op;
    ask.header.offset = fetch.request.offset;
    ask.length = fetch.request.out.size();
    actions_.emplace_back(ask);
  }
  if (donor.waiting.empty() && donor.outstanding == 0) {
    donors_.erase(peer);
  }
}

// Removes a fetch whose answer is over, or will never come.
void Fetcher::forget(OpId op) {
  const auto at = fetches_.find(op);
  const PeerId peer = at->second.request.donor;
  Donor& donor = donors_[peer];
  if (at->second.asked) {
    --donor.outstanding;
  } else {
    std::erase(donor.waiting, op);
  }
  fetches_.erase(at);
  ask_more(peer);
}

void Fetcher::end(Fetch& fetch, Code code, std::string message) {
  if (fetch.ended) {
    return;
  }
  fetch.ended = true;
  FetchEnd action;
  action.op = fetch.request.op;
  action.code = code;
  action.message = std::move(message);
  action.revision = fetch.revision.value_or(kAnyRevision);
  action.length = fetch.received;
  actions_.emplace_back(std::move(action));
}

void Fetcher::abort(OpId op) {
  const auto at = fetches_.find(op);
  if (at == fetches_.end()) {
    return;
  }
  end(at->second, Code::aborted, "the fetch was aborted");
  if (answer_is_over(at->second)) {
    forget(op);
  }
}

void Fetcher::close() {
  for (auto& [op, fetch] : fetches_) {
    end(fetch, Code::closed, "the engine is closed");
  }
  fetches_.clear();
  donors_.clear();
}

Fetcher::Fetch* Fetcher::find(const PeerId& from, const FrameHeader& header) {
  const auto at = fetches_.find(header.sequence);
  const bool known =
      at != fetches_.end() && at->second.request.donor == from && at->second.asked;
  return known ? &at->second : nullptr;
}

bool Fetcher::fits(const Fetch& fetch, const FrameHeader& header) {
  const FetchRequest& request = fetch.request;
  const std::uint64_t wanted =
      fetch.revision.value_or(request.revision);  // the first frame settles what "any" is
  const std::uint64_t size = request.out.size();
  return header.channel == request.buffer &&
         (wanted == kAnyRevision || header.epoch == wanted) && header.epoch != kAnyRevision &&
         header.offset >= request.offset && header.offset - request.offset <= size &&
         header.length <= size - (header.offset - request.offset) &&
         header.length <= size - std::min(size, fetch.announced);
}

// Whether no frame of an answer is still to come.
bool Fetcher::answer_is_over(const Fetch& fetch) {
  return !fetch.asked || (fetch.total && fetch.announced >= *fetch.total);
}

// Accounts for a frame as soon as its header is here: frames of a fetch that has ended are thrown
// away and never delivered.
void Fetcher::announce(Fetch& fetch, const FrameHeader& header) {
  fetch.announced += header.length;
  fetch.revision = header.epoch;
  if (header.phase == SendQueue::kLastPhase) {
    fetch.total = header.offset - fetch.request.offset + header.length;
  }
  if (fetch.ended && answer_is_over(fetch)) {
    forget(fetch.request.op);
  }
}

Destination Fetcher::place(const PeerId& from, const FrameHeader& header) {
  Fetch* fetch = header.type == FrameType::state_data ? find(from, header) : nullptr;
  if (fetch == nullptr || !fits(*fetch, header)) {
    return {};
  }
  const bool wanted = !fetch->ended;
  const std::size_t at = static_cast<std::size_t>(header.offset - fetch->request.offset);
  const std::span<std::byte> out = fetch->request.out;
  announce(*fetch, header);
  if (!wanted) {
    return {};
  }
  return {out.subspan(at, header.length), header.sequence};
}

void Fetcher::displaced(const PeerId& from, const FrameHeader& header) {
  if (Fetch* fetch = find(from, header)) {
    fetch->announced -= std::min<std::uint64_t>(header.length, fetch->announced);
  }
}

Status Fetcher::deliver(const PeerId& from, const FrameHeader& header,
                        std::span<const std::byte> payload) {
  Fetch* fetch = find(from, header);
  if (fetch == nullptr) {
    return Unit{};  // late: the fetch is over
  }
  if (header.type == FrameType::state_nack) {
    deliver_nack(*fetch, load_le<std::uint64_t>(payload.data()));
    return Unit{};
  }
  if (header.length == 0) {  // was not placed
    if (!fits(*fetch, header)) {
      return Error{Code::protocol, 0, "a donor sent state that was not asked for"};
    }
    const bool ended = fetch->ended;
    announce(*fetch, header);
    if (ended) {
      return Unit{};
    }
  }
  if (fetch->ended) {
    return Unit{};
  }
  const std::byte* expected = fetch->request.out.data() + (header.offset - fetch->request.offset);
  if (header.length > 0 && payload.data() != expected) {
    return Error{Code::protocol, 0, "a donor sent state that was not asked for"};
  }
  fetch->received += header.length;
  if (fetch->total && fetch->received >= *fetch->total) {
    const bool whole = *fetch->total == fetch->request.out.size() || fetch->request.buffer == 0;
    end(*fetch, whole ? Code::ok : Code::invalid, whole ? "" : "the donor's buffer is shorter");
    forget(header.sequence);
  }
  return Unit{};
}

void Fetcher::deliver_nack(Fetch& fetch, std::uint64_t held) {
  const OpId op = fetch.request.op;
  fetch.revision = held;
  if (held == kAnyRevision) {
    end(fetch, Code::wrong_revision, "the donor holds no shared state");
  } else if (fetch.request.revision != kAnyRevision && fetch.request.revision != held) {
    end(fetch, Code::wrong_revision,
        "revision " + std::to_string(fetch.request.revision) + " was asked for, the donor holds " +
            std::to_string(held));
  } else {
    end(fetch, Code::invalid, "the donor has no such buffer, or it is shorter");
  }
  forget(op);
}

void Fetcher::link_down(const PeerId& peer) {
  donors_.erase(peer);
  for (auto at = fetches_.begin(); at != fetches_.end();) {
    if (at->second.request.donor == peer) {
      end(at->second, Code::peer_lost, "the link to donor " + peer.shorthand() + " is down");
      at = fetches_.erase(at);
    } else {
      ++at;
    }
  }
}

Nanos Fetcher::tick(Nanos now) {
  Nanos next = kNever;
  std::vector<OpId> over;
  for (auto& [op, fetch] : fetches_) {
    if (fetch.ended) {
      continue;
    }
    if (now < fetch.request.deadline) {
      next = std::min(next, fetch.request.deadline);
      continue;
    }
    end(fetch, Code::deadline, "the fetch's deadline passed");
    if (answer_is_over(fetch)) {
      over.push_back(op);
    }
  }
  for (const OpId op : over) {
    forget(op);
  }
  return next;
}

bool Fetcher::next(FetchAction& action) {
  if (actions_.empty()) {
    return false;
  }
  action = std::move(actions_.front());
  actions_.pop_front();
  return true;
}

}  // namespace reef
