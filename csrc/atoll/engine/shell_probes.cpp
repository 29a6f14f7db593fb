// The shell's side of measuring links.
#include <algorithm>
#include <utility>

#include "atoll/engine/shell.h"

namespace reef {

void Shell::handle(ProbeCommand& command) {
  const ProbeRequest& request = command.request;
  Status status = Unit{};
  if (closing_) {
    status = Error{Code::closed, 0, "the engine is closed"};
  } else if (link_to(request.peer) == nullptr) {
    status = Error{Code::peer_lost, 0, "there is no link to peer " + request.peer.shorthand()};
  } else {
    status = prober_.start(request, monotonic_now());
  }
  if (!status.ok()) {
    end_op(request.op, Outcome{.code = status.error().code, .message = status.error().message});
    return;
  }
  prober_due_ = 0;
}

Status Shell::answer_probe(Link& link, const FrameHeader& header) {
  const Nanos now = monotonic_now();
  return probe_answers_.deliver(link.peer(), header, link.tally(now).received_bytes, now);
}

Status Shell::end_probe(Link& link, const FrameHeader& header, std::span<const std::byte> payload) {
  prober_due_ = 0;  // a burst may have begun, whose end is the next deadline
  return prober_.deliver(link.peer(), header, payload, monotonic_now());
}

void Shell::act(ProbeSend& send) {
  Link* link = link_to(send.to);
  if (link == nullptr) {
    return;  // link_down() has ended the probe
  }
  OutFrame frame;
  frame.header = encode_header(send.header);
  if (send.header.type == FrameType::probe_reply) {
    frame.owned.assign(send.reply.begin(), send.reply.end());
    frame.payload = frame.owned;
  } else {
    frame.payload = send.payload;
  }
  check(frame.payload.size() == send.header.length, "Shell: a header lies about its payload");
  if (send.filler) {
    link->unleash(true);
    link->send_filler(std::move(frame));
  } else {
    link->send_control(std::move(frame));
  }
}

void Shell::act(ProbeEnd& end) {
  if (Link* link = link_to(end.peer)) {
    link->unleash(false);
  }
  end_op(end.op, Outcome{.code = end.code,
                         .message = std::move(end.message),
                         .bytes_per_s = end.bytes_per_s,
                         .round_trip = end.round_trip});
}

}  // namespace reef
