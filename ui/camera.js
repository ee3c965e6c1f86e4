// A photo from the camera: a still frame as a JPEG.
const createCamera = ({ dialog, video, shoot, leave, capture, take, say }) => {
  const WHY_NOT = {
    NotAllowedError: "This page may not use the camera: allow it beside the address, or choose a photo.",
    NotFoundError: "There is no camera here: connect one, or choose a photo.",
    NotReadableError: "Another program uses the camera: end it there, or choose a photo.",
  };
  const JPEG_QUALITY = 0.92;

  dialog.addEventListener("close", () => {
    for (const track of video.srcObject?.getTracks() ?? []) track.stop();
    video.srcObject = null;
  });
  leave.addEventListener("click", () => dialog.close());
  shoot.addEventListener("click", () => {
    if (!video.videoWidth) return;
    const canvas = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      dialog.close();
      take(new File([blob], "Photo from the camera.jpg", { type: "image/jpeg" }));
    }, "image/jpeg", JPEG_QUALITY);
  });
  capture.addEventListener("change", () => {
    if (capture.files[0]) take(capture.files[0]);
    capture.value = "";
  });

  return async () => {
    // Browsers lend a camera to https and localhost only; phones have an app of their own for it.
    if (!navigator.mediaDevices?.getUserMedia) {
      if (matchMedia("(pointer: coarse)").matches) return capture.click();
      return say("Browsers lend the camera to pages on https or localhost only: choose a photo.");
    }
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
      dialog.showModal();
    } catch (error) {
      say(WHY_NOT[error.name] || `The camera cannot be used (${error.message}): choose a photo.`);
    }
  };
};
